/*
 * Entry: the arm64 Image header, a stack, cleared .bss, exception vectors; then check_main.
 *
 * The boot protocol enters at EL1 with MMU and caches off and the device tree's address in x0. They stay off: data
 * accesses then have Device-nGnRnE order, which is all that a driver of coherent hardware needs.
 */

        .section .text.boot, "ax"
        .global _start
_start:
        b       enter
        .word   0
        .quad   0                       /* text_offset */
        .quad   _end - _start           /* image_size */
        .quad   0xa                     /* little-endian, 4 KiB pages, anywhere */
        .quad   0, 0, 0
        .ascii  "ARM\x64"
        .word   0

enter:
        adr     x1, vectors
        msr     vbar_el1, x1
        ldr     x1, =stack_top
        mov     sp, x1
        ldr     x1, =bss_start
        ldr     x2, =_end
1:      cmp     x1, x2
        b.hs    2f
        stp     xzr, xzr, [x1], #16
        b       1b
2:      isb
        bl      check_main
        b       .

        .macro  vector number
        .balign 0x80
        mov     x0, #\number
        b       unexpected
        .endm

        .balign 0x800
vectors:
        vector  0
        vector  1
        vector  2
        vector  3
        vector  4
        vector  5
        vector  6
        vector  7
        vector  8
        vector  9
        vector  10
        vector  11
        vector  12
        vector  13
        vector  14
        vector  15

/* No check takes an exception: interrupts are looked for, never taken. */
unexpected:
        ldr     x1, =stack_top
        mov     sp, x1
        mrs     x1, esr_el1
        mrs     x2, elr_el1
        mrs     x3, far_el1
        bl      check_exception
        b       .
