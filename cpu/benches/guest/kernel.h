// What the bench kernels share: each file defines `kernel`, whose result proves that all engines did the same work.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

u64 kernel(void);

// The console is a PL011 at its place on QEMU's `virt` board.
void print(u64 value)
{
	volatile u32 *data = (volatile u32 *)0x09000000;

	for (int shift = 60; shift >= 0; shift -= 4)
		*data = "0123456789abcdef"[value >> shift & 15];
	*data = '\n';
}

static inline u32 next(u32 *state)
{
	*state = *state * 1664525 + 1013904223;
	return *state;
}
