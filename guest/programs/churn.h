/*
 * churn: commands that run without a pause on memory that others take away, move, copy or protect meanwhile.
 *
 * A churn has two pumps, one for each direction: threads that give the device a command, wait for it, compare every
 * byte of what came out, and begin anew. The phases (churn_phases.c) change the memory under them. Whoever changes or
 * looks at the memory holds the lock; the device, of course, does not.
 */
#ifndef CHURN_H
#define CHURN_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wd_queue.h"

/* Plain data of a command, and room for its output: large enough to be caught at work, and a multiple of every page size. */
#define CHURN_BYTES (512u << 10)

/* The four pieces of memory that the device works on. */
enum piece { PLAIN, PACKED, UNPACKED, SQUEEZED, PIECES };

enum backing {
    ANONYMOUS,                  /* four private mappings */
    SHARED,                     /* four mappings of one file in memory, with a second view that nobody takes away */
    HUGE,                       /* all four in one huge page */
};

struct churn;

struct pump {
    struct churn *churn;
    struct wd_queue queue;
    pthread_t thread;
    enum piece source, destination;
    uint32_t bytes_in, bytes_out;
    const char *expected;
    bool frozen;                /* the destination may not be wiped */
    unsigned long right;        /* commands that succeeded, with the right output */
    unsigned long refused;      /* commands that the device ended with an error */
};

struct churn {
    pthread_mutex_t lock;
    pthread_cond_t progress;
    char *at[PIECES];           /* where the device finds them */
    char *view[PIECES];         /* where the process does */
    int file;                   /* of SHARED */
    char *text, *reference;     /* what PLAIN and PACKED hold, out of everybody's reach */
    uint32_t reference_bytes;
    bool may_refuse;            /* an error is an answer in this phase */
    bool stop, failed;
    struct pump pumps[2];       /* compression, decompression */
};

/* Memory, queues and pumps; `seed` makes the text. False, and a message, if something is missing. */
bool churn_start(struct churn *churn, enum backing backing, bool may_refuse, uint32_t seed);

/* Stops the pumps; false if anything was ever wrong. Frees what the device needs, and leaves the rest to exit. */
bool churn_stop(struct churn *churn);

/* Waits until every pump has had `count` more right commands. Two: one of them was begun after this call. */
bool churn_wait_right(struct churn *churn, unsigned long count);

/* Waits until a pump has had a refused command more. */
bool churn_wait_refused(struct churn *churn, struct pump *pump);

/* The offset of a piece in the file of SHARED. */
long churn_offset(enum piece piece);

/* The phases: each changes the memory `rounds` times under pumps that run. True if all was as it must be. */
bool churn_discard(struct churn *churn, unsigned rounds);
bool churn_fork(struct churn *churn, unsigned rounds);
bool churn_exit(struct churn *churn, unsigned rounds);
bool churn_munmap(struct churn *churn, unsigned rounds);
bool churn_remap(struct churn *churn, unsigned rounds);
bool churn_mremap(struct churn *churn, unsigned rounds);
bool churn_swap(struct churn *churn, unsigned rounds);
bool churn_split(struct churn *churn, unsigned rounds);
bool churn_mprotect(struct churn *churn, unsigned rounds);
bool churn_userfault(struct churn *churn, unsigned rounds);

#endif
