/*
 * disks: the input and output disks of zip-stream, read and written in order with direct I/O.
 *
 * Direct I/O moves data between the disk and the program's own pages without a copy by the guest's processor.
 * Failures are reported in the record.
 */
#ifndef DISKS_H
#define DISKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "record.h"

#define BLOCK_BYTES 4096u

struct input {
    int fd;
    uint64_t length;            /* exact bytes; the disk is padded beyond */
};

/* Opens the disk and checks that it has `length` bytes. */
int input_open(struct input *input, const char *path, uint64_t length, struct record *record);

/* Reads `length` bytes at `at`, a multiple of BLOCK_BYTES, into `buffer`, aligned and sized in whole blocks. */
int input_read(const struct input *input, void *buffer, size_t length, uint64_t at, struct record *record);

struct output {
    int fd;
    uint64_t limit;             /* bytes before the record */
    uint64_t written;           /* bytes on the disk, a multiple of BLOCK_BYTES */
    char *buffer;               /* bytes not yet on the disk */
    size_t fill, size;
};

int output_open(struct output *output, const char *path, size_t buffer_bytes, struct record *record);

/* Appends a copy of the data. */
int output_put(struct output *output, const void *data, size_t length, struct record *record);

/* Room for at least `least` bytes, to be filled in place; `*room` is what there is. Then say how many with output_took. */
void *output_room(struct output *output, size_t least, size_t *room, struct record *record);
int output_took(struct output *output, size_t length, struct record *record);

/* Bytes appended so far. */
uint64_t output_length(const struct output *output);

/* Writes what is left, padded with zeros, and makes it durable. */
int output_flush(struct output *output, struct record *record);

/* Writes the record at the end of the disk. Returns 0 or -errno. */
int output_record(const struct output *output, const struct record *record);

#endif
