// Entry of a bench kernel: EL1, MMU off. Maps the first 4 GiB one to one (devices, then RAM), enables caches and
// floating point, sets the stack, and runs `kernel`. Prints the result, then powers off by PSCI.

	.global _start
	.section .text.start, "ax"
_start:
	adrp	x0, level1
	mov	x1, #0x401			// device: AttrIdx 0, AF, block
	str	x1, [x0]
	mov	x1, #0x705			// normal: AttrIdx 1, inner shareable, AF, block
	movk	x1, #0x4000, lsl #16
	str	x1, [x0, #8]
	dsb	sy
	mov	x1, #0xff00			// MAIR: 0 = nGnRnE, 1 = write-back
	msr	mair_el1, x1
	mov	x1, #0x3519			// T0SZ = 25: walks start at level 1; write-back, inner shareable
	movk	x1, #0x0080, lsl #16		// EPD1
	movk	x1, #2, lsl #32			// IPS: 40 bits
	msr	tcr_el1, x1
	msr	ttbr0_el1, x0
	mov	x1, #(3 << 20)
	msr	cpacr_el1, x1
	isb
	mrs	x1, sctlr_el1
	mov	x2, #0x1005			// M, C, I
	orr	x1, x1, x2
	msr	sctlr_el1, x1
	isb
	adrp	x1, stack_top
	mov	sp, x1
	bl	kernel
	bl	print
	mov	w0, #8				// PSCI SYSTEM_OFF
	movk	w0, #0x8400, lsl #16
	hvc	#0
	b	.

	.section .bss
	.balign	4096
level1:
	.skip	4096
	.skip	65536
	.balign	4096
stack_top:
	.skip	16
