/*
 * wd_queue: a hardware queue of an accelerator, opened through the kernel's uacce device.
 *
 * One queue is one open file. Its memory holds the submission ring, the completion ring and two status words; commands
 * are given with a store to a doorbell page, without a system call. Interface: the kernel's
 * `include/uapi/misc/uacce/{uacce,hisi_qm}.h` (the numbers are restated, so that no kernel headers are needed).
 * Functions return 0 or a negative errno unless they say otherwise.
 */
#ifndef WD_QUEUE_H
#define WD_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "zip_sqe.h"

/* What sysfs says about an accelerator. */
struct wd_device {
    char name[32];              /* below /sys/class/uacce and /dev */
    char api[32];               /* such as "hisi_qm_v3" */
    char algorithms[128];       /* separated by spaces */
    unsigned long mmio_bytes, queue_bytes;
    int available;              /* queues that nobody has opened */
};

struct wd_queue {
    int fd;
    uint16_t id;                /* the queue's number in its function */
    uint16_t sq_depth, cq_depth;
    uint16_t sq_tail, cq_head;
    uint16_t under_way;         /* commands submitted and not taken */
    uint16_t unseen;            /* most completions that the kernel may not have seen */
    bool cq_phase;              /* phase of the next valid completion */
    void *mmio, *memory;
    unsigned long mmio_bytes, queue_bytes;
};

/* The first accelerator of class uacce that offers `algorithm`; -ENODEV if none. */
int wd_find(struct wd_device *device, const char *algorithm);

/* Binds this process's address space to the device and starts a queue of the given direction. */
int wd_open(struct wd_queue *queue, const struct wd_device *device, enum zip_direction direction);

/* Stops the queue and waits until the device has let go of it. Harmless on a queue that wasn't opened (fd < 0). */
void wd_close(struct wd_queue *queue);

/* Puts a command into the ring and rings the doorbell; -EAGAIN when the ring is full, -EIO when the kernel stopped the queue. */
int wd_submit(struct wd_queue *queue, const struct zip_sqe *command);

/* Takes the next completed command: 1 if there was one, 0 if not, -EIO when the kernel stopped the queue. Never waits. */
int wd_take(struct wd_queue *queue, struct zip_sqe *done);

/* Asks for one interrupt at the next completion, or now if there is one already. Call before poll() on `fd`. */
void wd_arm(struct wd_queue *queue);

/* Waits for the next completed command: 0 when taken, -ETIMEDOUT after `timeout_ms` (negative: for ever). */
int wd_wait(struct wd_queue *queue, struct zip_sqe *done, int timeout_ms);

/* Submits and waits. */
int wd_do(struct wd_queue *queue, struct zip_sqe *command, int timeout_ms);

#endif
