/*
 * record: what zip-stream reports, and its text form at the end of the output disk.
 *
 * Format: docs/compress-protocol.md.
 */
#ifndef RECORD_H
#define RECORD_H

#include <stdint.h>

#include "wd_queue.h"

#define RECORD_BYTES 4096

enum record_status {
    RECORD_OK,
    RECORD_USAGE,
    RECORD_SETUP,
    RECORD_INPUT,
    RECORD_OUTPUT,
    RECORD_FULL,
    RECORD_CORRUPT,
    RECORD_DEVICE,
};

struct record {
    enum record_status status;
    char message[256];
    uint64_t error_at;
    uint64_t input_bytes, output_bytes;
    uint64_t commands, queues;
    uint64_t busy_ns, latency_ns, latency_max_ns, elapsed_ns;
    struct wd_device device;
};

/* Sets the status and the message, unless there is an earlier one: the first cause is the one to report. Returns -1. */
int record_fail(struct record *record, enum record_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Writes the text form, padded with zeros. */
void record_format(const struct record *record, char text[RECORD_BYTES]);

#endif
