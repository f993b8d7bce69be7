#include "print.h"

#include <stdarg.h>

#include "base.h"

#define UART 0x09000000ull
#define UARTDR (UART + 0x00)
#define UARTFR (UART + 0x18)
#define UARTFR_TXFF BIT(5)

static void put(char c)
{
    while (r32(UARTFR) & UARTFR_TXFF) {
    }
    w32(UARTDR, (uint8_t)c);
}

static void put_number(uint64_t value, unsigned base)
{
    char digits[20];
    unsigned count = 0;

    do {
        digits[count++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    while (count > 0)
        put(digits[--count]);
}

void print(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    for (const char *at = format; *at != '\0'; at++) {
        if (*at != '%') {
            put(*at);
            continue;
        }
        at++;
        if (*at == 's') {
            for (const char *text = va_arg(arguments, const char *); *text != '\0'; text++)
                put(*text);
        } else if (*at == 'u') {
            put_number(va_arg(arguments, unsigned), 10);
        } else if (*at == 'l') { /* %lx */
            at++;
            put('0');
            put('x');
            put_number(va_arg(arguments, uint64_t), 16);
        } else {
            put(*at);
        }
    }
    va_end(arguments);
}
