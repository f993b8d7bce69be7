/*
 * zip-stream: compresses or decompresses one disk to another on the accelerator.
 *
 * The guest's half of `warpvmm compress`; docs/compress-protocol.md says what both halves agree on. All pointers given
 * to the device are to ordinary memory of this process; output buffers are handed over without having been touched, so
 * that their first pages come in through faults in the SMMU.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "disks.h"
#include "framing.h"
#include "record.h"
#include "wd_queue.h"

#define QUEUES_MAX 16
#define CHUNK_MIN BLOCK_BYTES
#define CHUNK_MAX (4u << 20)
/* How long a command may take before the job gives up; generous, for a machine that is interpreted. */
#define PATIENCE_MS 120000
/* Smallest room worth a decompression command. */
#define ROOM_MIN (64u << 10)

struct job {
    bool compress;
    enum zip_format format;
    uint64_t length;
    size_t chunk;
    unsigned queues;
};

/* One command's worth of everything. */
struct slot {
    struct wd_queue queue;
    char *source, *destination, *context;
    size_t destination_bytes;
    struct zip_sqe sqe;
    uint64_t submitted_ns;
    bool under_way;
};

struct work {
    const struct job *job;
    struct record *record;
    struct input input;
    struct output output;
    struct slot slot[QUEUES_MAX];
    unsigned slots, under_way;
    uint64_t busy_since_ns;
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void *memory(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return at == MAP_FAILED ? NULL : at;
}

/* Opens `wanted` queues, or as many as the device has left, at least one. */
static int open_slots(struct work *work, unsigned wanted)
{
    static const char *const NAMES[] = {[ZIP_DEFLATE] = "deflate", [ZIP_ZLIB] = "zlib", [ZIP_GZIP] = "gzip"};
    const struct job *job = work->job;
    struct record *record = work->record;

    if (wd_find(&record->device, NAMES[job->format]) != 0)
        return record_fail(record, RECORD_SETUP, "no accelerator with user queues offers %s", NAMES[job->format]);
    for (work->slots = 0; work->slots < wanted; work->slots++) {
        struct slot *slot = &work->slot[work->slots];
        int error = wd_open(&slot->queue, &record->device, job->compress ? ZIP_COMPRESS : ZIP_DECOMPRESS);

        if (error && work->slots == 0)
            return record_fail(record, RECORD_SETUP, "cannot open a queue of %s: %s", record->device.name,
                               strerror(-error));
        if (error)
            break;
        slot->destination_bytes = job->chunk + job->chunk / 8 + BLOCK_BYTES;
        slot->source = memory(BLOCK_BYTES + job->chunk);
        slot->destination = memory(slot->destination_bytes);
        slot->context = memory(ZIP_CONTEXT_BYTES);
        if (!slot->source || !slot->destination || !slot->context)
            return record_fail(record, RECORD_SETUP, "no memory for %u chunks of %zu bytes", wanted, job->chunk);
    }
    record->queues = work->slots;
    return 0;
}

static void close_slots(struct work *work)
{
    for (unsigned i = 0; i < work->slots; i++)
        wd_close(&work->slot[i].queue);
}

static int submit(struct work *work, struct slot *slot)
{
    int error;

    slot->submitted_ns = now_ns();
    error = wd_submit(&slot->queue, &slot->sqe);
    if (error)
        return record_fail(work->record, RECORD_DEVICE, "cannot submit a command: %s", strerror(-error));
    slot->under_way = true;
    if (work->under_way++ == 0)
        work->busy_since_ns = slot->submitted_ns;
    return 0;
}

/* Takes every command that has completed; returns how many, or -1. */
static int take_completed(struct work *work)
{
    int taken = 0;

    for (unsigned i = 0; i < work->slots; i++) {
        struct slot *slot = &work->slot[i];
        int one = slot->under_way ? wd_take(&slot->queue, &slot->sqe) : 0;

        if (one < 0)
            return record_fail(work->record, RECORD_DEVICE, "the kernel stopped the queue: %s", strerror(-one));
        if (one == 0)
            continue;
        uint64_t now = now_ns(), latency = now - slot->submitted_ns;
        slot->under_way = false;
        work->record->commands++;
        work->record->latency_ns += latency;
        if (latency > work->record->latency_max_ns)
            work->record->latency_max_ns = latency;
        if (--work->under_way == 0)
            work->record->busy_ns += now - work->busy_since_ns;
        taken++;
    }
    return taken;
}

/* Waits until this slot's command has completed, collecting the others' on the way. */
static int await(struct work *work, const struct slot *slot)
{
    uint64_t deadline = now_ns() + (uint64_t)PATIENCE_MS * 1000000;

    while (slot->under_way) {
        struct pollfd waiting[QUEUES_MAX];
        nfds_t count = 0;
        int taken = take_completed(work);

        if (taken < 0)
            return -1;
        if (taken > 0)
            continue;
        if (now_ns() > deadline)
            return record_fail(work->record, RECORD_DEVICE, "a command did not complete within %d s",
                               PATIENCE_MS / 1000);
        for (unsigned i = 0; i < work->slots; i++) {
            if (!work->slot[i].under_way)
                continue;
            wd_arm(&work->slot[i].queue);
            waiting[count++] = (struct pollfd){.fd = work->slot[i].queue.fd, .events = POLLIN};
        }
        poll(waiting, count, 1000);
    }
    return 0;
}

/* --- Compression ------------------------------------------------------------------------------------------------- */

/* Reads chunk number `index` and gives it to the device; with `whole`, as a stream of its own. */
static int start_chunk(struct work *work, uint64_t index, bool whole)
{
    const struct job *job = work->job;
    struct slot *slot = &work->slot[index % work->slots];
    uint64_t at = index * job->chunk, left = job->length - at;
    size_t length = left < job->chunk ? (size_t)left : job->chunk;

    if (input_read(&work->input, slot->source, length, at, work->record) != 0)
        return -1;
    slot->sqe = zip_request(job->format, false, slot->source, (uint32_t)length, slot->destination,
                            (uint32_t)slot->destination_bytes);
    if (!whole)
        zip_continue(&slot->sqe, slot->context, NULL, false);
    return submit(work, slot);
}

/* Appends the output of a completed chunk. */
static int finish_chunk(struct work *work, uint64_t index, uint32_t *checksum)
{
    struct record *record = work->record;
    const struct slot *slot = &work->slot[index % work->slots];
    const struct zip_sqe *sqe = &slot->sqe;

    if (!zip_succeeded(sqe))
        return record_fail(record, RECORD_DEVICE, "the device refused input bytes from %" PRIu64 ": status %#x",
                           record->input_bytes, ZIP_STATUS(sqe));
    if (sqe->consumed != sqe->input_length || sqe->produced > slot->destination_bytes)
        return record_fail(record, RECORD_DEVICE, "the device used %u of %u input bytes and made %u", sqe->consumed,
                           sqe->input_length, sqe->produced);
    *checksum = frame_checksum_add(work->job->format, *checksum, sqe->checksum, sqe->consumed);
    record->input_bytes += sqe->consumed;
    return output_put(&work->output, slot->destination, sqe->produced, record);
}

static int compress(struct work *work)
{
    const struct job *job = work->job;
    uint64_t chunks = job->length / job->chunk + (job->length % job->chunk != 0);
    bool whole = chunks <= 1;
    uint32_t checksum = frame_checksum_start(job->format);
    uint8_t frame[FRAME_BYTES_MAX];

    if (whole)
        chunks = 1;
    if (open_slots(work, chunks < job->queues ? (unsigned)chunks : job->queues) != 0)
        return -1;
    if (output_put(&work->output, frame, frame_header(job->format, frame), work->record) != 0)
        return -1;
    for (uint64_t started = 0, finished = 0; finished < chunks; finished++) {
        /* Slots are used in turn, so that the oldest chunk is the next to be written. */
        for (; started < chunks && started - finished < work->slots; started++)
            if (start_chunk(work, started, whole) != 0)
                return -1;
        if (await(work, &work->slot[finished % work->slots]) != 0 || finish_chunk(work, finished, &checksum) != 0)
            return -1;
    }
    if (whole)
        return 0;
    return output_put(&work->output, frame, frame_end(job->format, checksum, job->length, frame), work->record);
}

/* --- Decompression ----------------------------------------------------------------------------------------------- */

/* Below this many bytes ready, more are read behind them: a device may need a whole symbol in one piece. */
#define READY_MIN 64

/* The input as a sequence of bytes, a chunk of it in memory, with room before it for what an earlier one left. */
struct reader {
    struct work *work;
    char *chunk;                /* aligned for direct I/O; BLOCK_BYTES before it are ours too */
    char *at, *end;             /* what is ready */
    uint64_t next;              /* offset in the input of the next chunk, that is, of `end` */
};

static uint64_t reader_offset(const struct reader *reader)
{
    return reader->next - (uint64_t)(reader->end - reader->at);
}

/* Bytes ready, after reading more if there are few; 0 at the end of the input or after a failure. */
static size_t reader_ready(struct reader *reader)
{
    struct work *work = reader->work;
    size_t kept = (size_t)(reader->end - reader->at);
    uint64_t left = work->job->length - reader->next;
    size_t more = left < work->job->chunk ? (size_t)left : work->job->chunk;

    if (kept < READY_MIN && more > 0) {
        memmove(reader->chunk - kept, reader->at, kept);
        reader->at = reader->chunk - kept;
        reader->end = reader->chunk;
        if (input_read(&work->input, reader->chunk, more, reader->next, work->record) != 0)
            return 0;
        reader->end += more;
        reader->next += more;
    }
    return (size_t)(reader->end - reader->at);
}

static int reader_next(void *source)
{
    struct reader *reader = source;

    return reader_ready(reader) > 0 ? (uint8_t)*reader->at++ : -1;
}

static int corrupt(struct work *work, uint64_t at, const char *what)
{
    work->record->error_at = at;
    return record_fail(work->record, RECORD_CORRUPT, "%s", what);
}

/* Decompresses one stream after its header, including the trailer. */
static int inflate_stream(struct work *work, struct reader *reader)
{
    struct slot *slot = &work->slot[0];
    struct zip_sqe previous;
    bool first = true;

    for (;;) {
        size_t ready = reader_ready(reader), room;
        void *destination = output_room(&work->output, ROOM_MIN, &room, work->record);

        if (!destination || work->record->status != RECORD_OK)
            return -1;
        slot->sqe = zip_request(work->job->format, false, reader->at, (uint32_t)ready, destination,
                                (uint32_t)room);
        zip_continue(&slot->sqe, slot->context, first ? NULL : &previous,
                     reader_offset(reader) + ready == work->job->length);
        if (submit(work, slot) != 0 || await(work, slot) != 0)
            return -1;

        const struct zip_sqe *sqe = &slot->sqe;
        if (sqe->consumed > ready || sqe->produced > room)
            return record_fail(work->record, RECORD_DEVICE, "the device used %u of %zu input bytes and made %u of %zu",
                               sqe->consumed, ready, sqe->produced, room);
        reader->at += sqe->consumed;
        if (output_took(&work->output, sqe->produced, work->record) != 0)
            return -1;
        switch (ZIP_STATUS(sqe)) {
        case ZIP_OK:
        case ZIP_GREW:
            break;
        case ZIP_STREAM_END:
            if (sqe->status & ZIP_LAST_BLOCK)
                return 0;
            break;
        case ZIP_BAD_CHECKSUM:
            return corrupt(work, reader_offset(reader), "the checksum does not match the data");
        default:
            return corrupt(work, reader_offset(reader), "the compressed data is damaged");
        }
        if (sqe->consumed == 0 && sqe->produced == 0) {
            if (reader->next == work->job->length)
                return corrupt(work, work->job->length, "the input ends too early");
            return record_fail(work->record, RECORD_DEVICE, "the device makes no progress at input byte %" PRIu64,
                               reader_offset(reader));
        }
        previous = *sqe;
        first = false;
    }
}

/* After a stream: is there another one? 1, 0, or -1 if what follows is neither a stream nor padding. */
static int another_stream(struct work *work, struct reader *reader)
{
    uint64_t at = reader_offset(reader);

    if (reader_ready(reader) == 0)
        return 0;
    if (work->job->format == ZIP_GZIP && (uint8_t)*reader->at == 0x1f)
        return 1;
    while (work->job->format == ZIP_GZIP && reader_ready(reader) > 0 && *reader->at == 0)
        reader->at++;
    return reader_ready(reader) == 0 ? 0 : corrupt(work, at, "something else follows the compressed data");
}

static int decompress(struct work *work)
{
    int more;

    if (open_slots(work, 1) != 0)
        return -1;
    char *chunk = work->slot[0].source + BLOCK_BYTES;
    struct reader reader = {.work = work, .chunk = chunk, .at = chunk, .end = chunk};
    do {
        const char *wrong = frame_read_header(work->job->format, reader_next, &reader);
        uint64_t at = reader_offset(&reader);

        if (work->record->status != RECORD_OK)
            return -1;
        if (wrong)
            return corrupt(work, at > 0 && at < work->job->length ? at - 1 : at, wrong);
        if (inflate_stream(work, &reader) != 0)
            return -1;
        work->record->input_bytes = reader_offset(&reader);
        more = another_stream(work, &reader);
    } while (more > 0);
    if (more == 0)
        work->record->input_bytes = work->job->length;
    return work->record->status == RECORD_OK ? 0 : -1;
}

/* --- Command line -------------------------------------------------------------------------------------------------- */

static bool number(const char *text, uint64_t least, uint64_t most, uint64_t *value)
{
    char *end;

    errno = 0;
    *value = strtoull(text, &end, 10);
    return errno == 0 && *text >= '0' && *text <= '9' && *end == '\0' && *value >= least && *value <= most;
}

static bool parse(struct job *job, int argc, char **argv)
{
    uint64_t value;

    *job = (struct job){.chunk = 1u << 20, .queues = 4};
    if (argc < 4)
        return false;
    job->compress = strcmp(argv[1], "compress") == 0;
    if (!job->compress && strcmp(argv[1], "decompress") != 0)
        return false;
    if (strcmp(argv[2], "gzip") == 0)
        job->format = ZIP_GZIP;
    else if (strcmp(argv[2], "zlib") == 0)
        job->format = ZIP_ZLIB;
    else if (strcmp(argv[2], "deflate") == 0)
        job->format = ZIP_DEFLATE;
    else
        return false;
    if (!number(argv[3], 0, INT64_MAX, &job->length))
        return false;
    for (int i = 4; i < argc; i++) {
        if (strncmp(argv[i], "--chunk=", 8) == 0 && number(argv[i] + 8, CHUNK_MIN, CHUNK_MAX, &value) &&
            value % BLOCK_BYTES == 0)
            job->chunk = (size_t)value;
        else if (strncmp(argv[i], "--queues=", 9) == 0 && number(argv[i] + 9, 1, QUEUES_MAX, &value))
            job->queues = (unsigned)value;
        else
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    static struct work work;
    static struct record record;
    struct job job;
    uint64_t start = now_ns();

    work.job = &job;
    work.record = &record;
    work.output.fd = -1;
    if (!parse(&job, argc, argv)) {
        record_fail(&record, RECORD_USAGE, "usage: zip-stream compress|decompress gzip|zlib|deflate LENGTH "
                                           "[--chunk=BYTES] [--queues=N]");
        job = (struct job){.chunk = 1u << 20};
    }
    /* The record has its place on the output disk, so that one comes first, also for a wrong command line. */
    if (output_open(&work.output, "/dev/vdb", 1u << 20, &record) == 0 && record.status == RECORD_OK &&
        input_open(&work.input, "/dev/vda", job.length, &record) == 0 &&
        (job.compress ? compress(&work) : decompress(&work)) == 0)
        output_flush(&work.output, &record);
    record.output_bytes = record.status == RECORD_OK ? output_length(&work.output) : work.output.written;
    record.elapsed_ns = now_ns() - start;

    if (record.status == RECORD_CORRUPT)
        fprintf(stderr, "zip-stream: input byte %" PRIu64 ": %s\n", record.error_at, record.message);
    else if (record.status != RECORD_OK)
        fprintf(stderr, "zip-stream: %s\n", record.message);
    int error = work.output.limit > 0 ? output_record(&work.output, &record) : -ENODEV;
    if (error)
        fprintf(stderr, "zip-stream: cannot write the record: %s\n", strerror(-error));
    close_slots(&work);
    printf("zip-stream: %" PRIu64 " bytes in, %" PRIu64 " out, %" PRIu64 " commands on %" PRIu64 " queues\n",
           record.input_bytes, record.output_bytes, record.commands, record.queues);
    return record.status == RECORD_OK && error == 0 ? 0 : 1;
}
