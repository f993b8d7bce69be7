/* record: see record.h. */
#include "record.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

static const char *const STATUS[] = {
    [RECORD_OK] = "ok",         [RECORD_USAGE] = "usage", [RECORD_SETUP] = "setup",     [RECORD_INPUT] = "input",
    [RECORD_OUTPUT] = "output", [RECORD_FULL] = "full",   [RECORD_CORRUPT] = "corrupt", [RECORD_DEVICE] = "device",
};

int record_fail(struct record *record, enum record_status status, const char *format, ...)
{
    va_list arguments;

    if (record->status == RECORD_OK) {
        record->status = status;
        va_start(arguments, format);
        vsnprintf(record->message, sizeof record->message, format, arguments);
        va_end(arguments);
    }
    return -1;
}

void record_format(const struct record *record, char text[RECORD_BYTES])
{
    struct utsname system = {0};
    FILE *out;

    uname(&system);
    memset(text, 0, RECORD_BYTES);
    out = fmemopen(text, RECORD_BYTES, "w");
    if (!out)
        return;
    fprintf(out, "warpvmm-result 1\nstatus=%s\n", STATUS[record->status]);
    if (record->status != RECORD_OK)
        fprintf(out, "message=%s\n", record->message);
    if (record->status == RECORD_CORRUPT || record->status == RECORD_INPUT)
        fprintf(out, "error_at=%" PRIu64 "\n", record->error_at);
    fprintf(out, "input_bytes=%" PRIu64 "\noutput_bytes=%" PRIu64 "\n", record->input_bytes, record->output_bytes);
    fprintf(out, "commands=%" PRIu64 "\nqueues=%" PRIu64 "\n", record->commands, record->queues);
    fprintf(out, "busy_ns=%" PRIu64 "\nlatency_ns=%" PRIu64 "\nlatency_max_ns=%" PRIu64 "\nelapsed_ns=%" PRIu64 "\n",
            record->busy_ns, record->latency_ns, record->latency_max_ns, record->elapsed_ns);
    fprintf(out, "kernel=%s\n", system.release);
    if (record->device.name[0])
        fprintf(out, "device=%s\napi=%s\nalgorithms=%s\n", record->device.name, record->device.api,
                record->device.algorithms);
    fclose(out);
}
