/* wd_queue: see wd_queue.h. */
#include "wd_queue.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define CLASS "/sys/class/uacce"

/* include/uapi/misc/uacce/uacce.h and hisi_qm.h */
struct qp_context {
    uint16_t id;                /* out */
    uint16_t type;              /* in: enum zip_direction */
};
struct qp_info {
    uint32_t sqe_size;
    uint16_t sq_depth, cq_depth;
    uint64_t reserved;
};
#define CMD_START_Q _IO('W', 0)
#define CMD_PUT_Q _IO('W', 1)
#define CMD_QM_SET_QP_CTX _IOWR('H', 10, struct qp_context)
#define CMD_QM_SET_QP_INFO _IOWR('H', 11, struct qp_info)
enum region { REGION_MMIO = 0, REGION_QUEUE = 1 };

struct cqe {
    uint32_t reserved0;
    uint16_t command_id, reserved1;
    uint16_t sq_head, sq_number;
    uint16_t reserved2;
    uint16_t phase_status;      /* bit 0 is the phase */
};
_Static_assert(sizeof(struct cqe) == 16, "a completion has 16 bytes");

#define DOORBELL_OFFSET 0x1000
enum doorbell { DOORBELL_SQ = 0, DOORBELL_CQ = 1 };

static int read_attribute(const char *device, const char *attribute, char *value, size_t size)
{
    char path[160];
    FILE *file;
    size_t n;

    snprintf(path, sizeof path, CLASS "/%s/%s", device, attribute);
    file = fopen(path, "re");
    if (!file)
        return -errno;
    n = fread(value, 1, size - 1, file);
    fclose(file);
    while (n > 0 && value[n - 1] == '\n')
        n--;
    value[n] = '\0';
    for (char *c = value; *c; c++)
        if (*c == '\n')
            *c = ' ';
    return 0;
}

static unsigned long read_number(const char *device, const char *attribute)
{
    char text[32];

    return read_attribute(device, attribute, text, sizeof text) == 0 ? strtoul(text, NULL, 0) : 0;
}

static bool has_word(const char *words, const char *word)
{
    size_t length = strlen(word);

    for (const char *at = words; (at = strstr(at, word)); at += length) {
        bool starts = at == words || at[-1] == ' ';
        if (starts && (at[length] == ' ' || at[length] == '\0'))
            return true;
    }
    return false;
}

int wd_find(struct wd_device *device, const char *algorithm)
{
    DIR *class = opendir(CLASS);
    struct dirent *entry;

    if (!class)
        return -ENODEV;
    while ((entry = readdir(class))) {
        if (entry->d_name[0] == '.' || strlen(entry->d_name) >= sizeof device->name)
            continue;
        memset(device, 0, sizeof *device);
        strcpy(device->name, entry->d_name);
        if (read_attribute(device->name, "algorithms", device->algorithms, sizeof device->algorithms) != 0 ||
            read_attribute(device->name, "api", device->api, sizeof device->api) != 0)
            continue;
        device->mmio_bytes = read_number(device->name, "region_mmio_size");
        device->queue_bytes = read_number(device->name, "region_dus_size");
        device->available = (int)read_number(device->name, "available_instances");
        if (has_word(device->algorithms, algorithm) && device->mmio_bytes > DOORBELL_OFFSET && device->queue_bytes > 0) {
            closedir(class);
            return 0;
        }
    }
    closedir(class);
    return -ENODEV;
}

static void *map_region(int fd, enum region region, unsigned long bytes)
{
    /* The page number of the offset selects the region. */
    off_t offset = (off_t)region * sysconf(_SC_PAGESIZE);

    return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
}

int wd_open(struct wd_queue *queue, const struct wd_device *device, enum zip_direction direction)
{
    struct qp_context context = {.type = (uint16_t)direction};
    struct qp_info info = {0};
    char path[64];
    int error;

    *queue = (struct wd_queue){
        .fd = -1, .cq_phase = true, .mmio = MAP_FAILED, .memory = MAP_FAILED,
        .mmio_bytes = device->mmio_bytes, .queue_bytes = device->queue_bytes,
    };
    snprintf(path, sizeof path, "/dev/%s", device->name);
    queue->fd = open(path, O_RDWR | O_CLOEXEC);
    if (queue->fd < 0)
        return -errno;

    queue->mmio = map_region(queue->fd, REGION_MMIO, queue->mmio_bytes);
    if (queue->mmio == MAP_FAILED)
        goto fail;
    queue->memory = map_region(queue->fd, REGION_QUEUE, queue->queue_bytes);
    if (queue->memory == MAP_FAILED)
        goto fail;
    if (ioctl(queue->fd, CMD_QM_SET_QP_CTX, &context) != 0 || ioctl(queue->fd, CMD_QM_SET_QP_INFO, &info) != 0)
        goto fail;
    if (info.sqe_size != sizeof(struct zip_sqe) || info.sq_depth < 2 || info.cq_depth < info.sq_depth ||
        (unsigned long)info.sq_depth * sizeof(struct zip_sqe) + info.cq_depth * sizeof(struct cqe) > queue->queue_bytes) {
        errno = EPROTO;
        goto fail;
    }
    queue->id = context.id;
    queue->sq_depth = info.sq_depth;
    queue->cq_depth = info.cq_depth;
    if (ioctl(queue->fd, CMD_START_Q) != 0)
        goto fail;
    return 0;

fail:
    error = -errno;
    wd_close(queue);
    return error;
}

void wd_close(struct wd_queue *queue)
{
    if (queue->fd < 0)
        return;
    ioctl(queue->fd, CMD_PUT_Q);
    if (queue->memory != MAP_FAILED)
        munmap(queue->memory, queue->queue_bytes);
    if (queue->mmio != MAP_FAILED)
        munmap(queue->mmio, queue->mmio_bytes);
    close(queue->fd);
    queue->fd = -1;
}

static void ring(const struct wd_queue *queue, enum doorbell doorbell, uint16_t index, uint16_t flag)
{
    volatile uint64_t *at = (volatile uint64_t *)((char *)queue->mmio + DOORBELL_OFFSET);
    uint64_t value = (uint64_t)flag << 48 | (uint64_t)index << 32 | (uint64_t)doorbell << 12 | (queue->id & 0xfff);

    /* The ring entry must be in memory before the device hears of it. */
    __asm__ volatile("dsb sy" ::: "memory");
    *at = value;
}

/* The kernel's word, at the end of the queue's memory, that the queue no longer runs. */
static bool stopped(const struct wd_queue *queue)
{
    const char *end = (const char *)queue->memory + queue->queue_bytes;

    return *(const volatile uint32_t *)(const void *)(end - 4) == 1;
}

/* Asks the kernel for completions, which it counts as far as they are there. */
static int ask_kernel(struct wd_queue *queue, struct pollfd *waiting, int timeout_ms)
{
    *waiting = (struct pollfd){.fd = queue->fd, .events = POLLIN};
    queue->unseen = queue->under_way;
    return poll(waiting, 1, timeout_ms);
}

int wd_submit(struct wd_queue *queue, const struct zip_sqe *command)
{
    struct zip_sqe *sq = queue->memory;

    if (stopped(queue))
        return -EIO;
    if (queue->under_way >= queue->sq_depth - 1)
        return -EAGAIN;
    /*
     * The kernel follows the completions by their phase, and only when it is asked. Were it left behind by a turn of the
     * ring, it would take new ones for old ones, and a process that waits for them would not be woken.
     */
    if (queue->unseen >= queue->cq_depth - 1) {
        struct pollfd waiting;
        ask_kernel(queue, &waiting, 0);
    }
    queue->unseen++;
    sq[queue->sq_tail] = *command;
    queue->sq_tail = (uint16_t)((queue->sq_tail + 1) % queue->sq_depth);
    queue->under_way++;
    ring(queue, DOORBELL_SQ, queue->sq_tail, 0);
    return 0;
}

int wd_take(struct wd_queue *queue, struct zip_sqe *done)
{
    const struct zip_sqe *sq = queue->memory;
    struct cqe *cq = (struct cqe *)((char *)queue->memory + (size_t)queue->sq_depth * sizeof *sq);
    struct cqe *next = &cq[queue->cq_head];

    /* The phase is written last: what was written before it is seen after it. */
    if ((__atomic_load_n(&next->phase_status, __ATOMIC_ACQUIRE) & 1) != (uint16_t)queue->cq_phase)
        return stopped(queue) ? -EIO : 0;
    if (next->sq_head >= queue->sq_depth)
        return -EIO;
    *done = sq[next->sq_head];
    if (++queue->cq_head == queue->cq_depth) {
        queue->cq_head = 0;
        queue->cq_phase = !queue->cq_phase;
    }
    queue->under_way--;
    ring(queue, DOORBELL_CQ, queue->cq_head, 0);
    return 1;
}

void wd_arm(struct wd_queue *queue)
{
    ring(queue, DOORBELL_CQ, queue->cq_head, 1);
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int wd_wait(struct wd_queue *queue, struct zip_sqe *done, int timeout_ms)
{
    int64_t deadline = now_ms() + timeout_ms;

    for (;;) {
        int taken = wd_take(queue, done);
        if (taken != 0)
            return taken < 0 ? taken : 0;
        /*
         * The kernel's poll reports completions that it hasn't reported before, so a first look may return at once for
         * one that was taken already; the next look waits.
         */
        int64_t left = timeout_ms < 0 ? -1 : deadline - now_ms();
        if (timeout_ms >= 0 && left <= 0)
            return -ETIMEDOUT;
        wd_arm(queue);
        struct pollfd waiting;
        if (ask_kernel(queue, &waiting, (int)left) < 0 && errno != EINTR)
            return -errno;
        if (waiting.revents & (POLLERR | POLLHUP | POLLNVAL))
            return -EIO;
    }
}

int wd_do(struct wd_queue *queue, struct zip_sqe *command, int timeout_ms)
{
    int error = wd_submit(queue, command);

    return error ? error : wd_wait(queue, command, timeout_ms);
}
