// An interpreter of a small bytecode, running a nested loop: indirect branches and calls.
#include "kernel.h"

enum op { PUSH, ADD, SUB, XOR, DUP, LOAD, STORE, JNZ, CALL, RET, HALT };

static long memory[16];

static long mix(long x)
{
	return x ^ x >> 7;
}

static const short code[] = {
	PUSH, 3000, STORE, 0,		// outer = 3000
	PUSH, 1000, STORE, 1,		// 4: inner = 1000
	LOAD, 2, LOAD, 1, ADD, CALL, STORE, 2,	// 8: sum = mix(sum + inner)
	LOAD, 1, PUSH, 1, SUB, DUP, STORE, 1,	// 16: inner--
	JNZ, 8,				// 24
	LOAD, 0, PUSH, 1, SUB, DUP, STORE, 0,	// 26: outer--
	JNZ, 4,				// 34
	LOAD, 2, HALT,
};

u64 kernel(void)
{
	static const void *const labels[] = {
		&&push, &&add, &&sub, &&xor, &&dup, &&load, &&store, &&jnz, &&call, &&ret, &&halt,
	};
	long (*volatile callee)(long) = mix;
	long stack[32], *sp = stack;
	const short *pc = code;

#define NEXT goto *labels[*pc++]
	NEXT;
push:	*sp++ = *pc++; NEXT;
add:	sp--; sp[-1] += *sp; NEXT;
sub:	sp--; sp[-1] -= *sp; NEXT;
xor:	sp--; sp[-1] ^= *sp; NEXT;
dup:	*sp = sp[-1]; sp++; NEXT;
load:	*sp++ = memory[*pc++]; NEXT;
store:	memory[*pc++] = *--sp; NEXT;
jnz:	if (*--sp)
		pc = code + *pc;
	else
		pc++;
	NEXT;
call:	sp[-1] = callee(sp[-1]); NEXT;
ret:	NEXT;
halt:	return sp[-1];
}
