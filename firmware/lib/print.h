/* Text on the PL011. */
#ifndef PRINT_H
#define PRINT_H

/* %s, %u (unsigned), %lx (uint64_t) and %%. */
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
