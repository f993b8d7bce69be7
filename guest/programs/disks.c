/* disks: see disks.h. */
#include "disks.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* linux/fs.h; restated so that no kernel headers are needed. */
#define BLKGETSIZE64 _IOR(0x12, 114, size_t)

static int disk_bytes(int fd, uint64_t *bytes)
{
    return ioctl(fd, BLKGETSIZE64, bytes) == 0 ? 0 : -errno;
}

static size_t whole_blocks(size_t bytes, size_t block)
{
    return (bytes + block - 1) / block * block;
}

int input_open(struct input *input, const char *path, uint64_t length, struct record *record)
{
    uint64_t bytes;

    input->length = length;
    input->fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (input->fd < 0)
        return record_fail(record, RECORD_SETUP, "cannot open the input disk %s: %s", path, strerror(errno));
    if (disk_bytes(input->fd, &bytes) != 0 || bytes < length)
        return record_fail(record, RECORD_SETUP, "the input disk %s has fewer than %" PRIu64 " bytes", path, length);
    return 0;
}

int input_read(const struct input *input, void *buffer, size_t length, uint64_t at, struct record *record)
{
    size_t done = 0;

    while (done < length) {
        /* The disk ends with a whole sector of 512 bytes, so that asking for whole sectors never goes beyond it. */
        ssize_t n = pread(input->fd, (char *)buffer + done, whole_blocks(length - done, 512), (off_t)(at + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            record->error_at = at + done;
            return record_fail(record, RECORD_INPUT, "cannot read the input disk at byte %" PRIu64 ": %s", at + done,
                               n < 0 ? strerror(errno) : "it ends there");
        }
        done += (size_t)n;
    }
    return 0;
}

int output_open(struct output *output, const char *path, size_t buffer_bytes, struct record *record)
{
    uint64_t bytes;

    *output = (struct output){.fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC), .size = buffer_bytes};
    if (output->fd < 0)
        return record_fail(record, RECORD_SETUP, "cannot open the output disk %s: %s", path, strerror(errno));
    if (disk_bytes(output->fd, &bytes) != 0 || bytes < 2 * RECORD_BYTES || bytes % RECORD_BYTES != 0)
        return record_fail(record, RECORD_SETUP, "the output disk %s is too small, or no multiple of %d bytes", path,
                           RECORD_BYTES);
    output->limit = bytes - RECORD_BYTES;
    output->buffer = mmap(NULL, buffer_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (output->buffer == MAP_FAILED)
        return record_fail(record, RECORD_SETUP, "no memory for the output buffer");
    return 0;
}

static int write_all(int fd, const char *data, size_t length, uint64_t at)
{
    while (length > 0) {
        ssize_t n = pwrite(fd, data, length, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        data += n;
        at += (uint64_t)n;
        length -= (size_t)n;
    }
    return 0;
}

/* Writes the whole blocks of the buffer, or with `all` also the rest, padded, and keeps what was not written. */
static int drain(struct output *output, bool all, struct record *record)
{
    size_t bytes = all ? whole_blocks(output->fill, BLOCK_BYTES) : output->fill / BLOCK_BYTES * BLOCK_BYTES;
    size_t kept = all ? 0 : output->fill - bytes;

    if (output->written + bytes > output->limit)
        return record_fail(record, RECORD_FULL, "the output is larger than the %" PRIu64 " bytes that the disk holds",
                           output->limit);
    if (bytes > output->fill)
        memset(output->buffer + output->fill, 0, bytes - output->fill);
    int error = write_all(output->fd, output->buffer, bytes, output->written);
    if (error)
        return record_fail(record, RECORD_OUTPUT, "cannot write the output disk: %s", strerror(-error));
    output->written += all ? output->fill : bytes;
    memmove(output->buffer, output->buffer + bytes, kept);
    output->fill = kept;
    return 0;
}

int output_put(struct output *output, const void *data, size_t length, struct record *record)
{
    const char *at = data;

    while (length > 0) {
        size_t here = output->size - output->fill;
        if (here > length)
            here = length;
        memcpy(output->buffer + output->fill, at, here);
        output->fill += here;
        at += here;
        length -= here;
        if (output->fill == output->size && drain(output, false, record) != 0)
            return -1;
    }
    return 0;
}

void *output_room(struct output *output, size_t least, size_t *room, struct record *record)
{
    if (output->size - output->fill < least && drain(output, false, record) != 0)
        return NULL;
    *room = output->size - output->fill;
    return output->buffer + output->fill;
}

int output_took(struct output *output, size_t length, struct record *record)
{
    output->fill += length;
    return output->fill == output->size ? drain(output, false, record) : 0;
}

uint64_t output_length(const struct output *output)
{
    return output->written + output->fill;
}

int output_flush(struct output *output, struct record *record)
{
    if (drain(output, true, record) != 0)
        return -1;
    if (fsync(output->fd) != 0)
        return record_fail(record, RECORD_OUTPUT, "cannot flush the output disk: %s", strerror(errno));
    return 0;
}

int output_record(const struct output *output, const struct record *record)
{
    char *text = mmap(NULL, RECORD_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (text == MAP_FAILED)
        return -ENOMEM;
    record_format(record, text);
    int error = write_all(output->fd, text, RECORD_BYTES, output->limit);
    if (error == 0 && fsync(output->fd) != 0)
        error = -errno;
    munmap(text, RECORD_BYTES);
    return error;
}
