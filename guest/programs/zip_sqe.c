/* zip_sqe: see zip_sqe.h. */
#include "zip_sqe.h"

#include <stdlib.h>
#include <string.h>

#define ENTRIES_PER_LIST 255

static uint32_t low(const void *pointer)
{
    return (uint32_t)(uintptr_t)pointer;
}

static uint32_t high(const void *pointer)
{
    return (uint32_t)((uintptr_t)pointer >> 32);
}

struct zip_sqe zip_request(enum zip_format format, bool sgl, const void *source, uint32_t length, void *destination,
                           uint32_t available)
{
    return (struct zip_sqe){
        .input_length = length,
        .control = ZIP_TYPE(ZIP_TYPE_USED) | ZIP_NEW | ZIP_FINISH,
        .request = (uint32_t)format | (sgl ? ZIP_BUFFER_SGL : 0) | ZIP_WINDOW_32K,
        .output_available = available,
        .source_low = low(source),
        .source_high = high(source),
        .destination_low = low(destination),
        .destination_high = high(destination),
    };
}

void zip_continue(struct zip_sqe *sqe, void *context, const struct zip_sqe *previous, bool finish)
{
    void *base = (char *)context + ZIP_CONTEXT_OFFSET;

    sqe->control = ZIP_TYPE(ZIP_TYPE_USED) | ZIP_STATEFUL | (previous ? 0 : ZIP_NEW) | (finish ? ZIP_FINISH : 0);
    sqe->context_low = low(base);
    sqe->context_high = high(base);
    if (previous) {
        sqe->context0 = previous->context0;
        sqe->context1 = previous->context1;
        sqe->context2 = previous->context2;
        sqe->total_length = previous->total_length;
        sqe->checksum = previous->checksum;
    }
}

struct zip_sgl *zip_sgl_new(void *data, size_t length, size_t piece)
{
    struct zip_sgl *first = NULL, *last = NULL;
    char *at = data;
    size_t left = length;

    do {
        struct zip_sgl *list;
        size_t bytes = sizeof *list + ENTRIES_PER_LIST * sizeof(struct zip_sge);

        if (posix_memalign((void **)&list, 64, bytes) != 0) {
            zip_sgl_free(first);
            return NULL;
        }
        memset(list, 0, bytes);
        list->entries_capacity = ENTRIES_PER_LIST;
        if (last)
            last->next = (uintptr_t)list;
        else
            first = list;
        last = list;
        while (left > 0 && list->entries_here < ENTRIES_PER_LIST) {
            size_t here = left < piece ? left : piece;
            list->entry[list->entries_here++] = (struct zip_sge){.address = (uintptr_t)at, .length = (uint32_t)here};
            at += here;
            left -= here;
        }
        first->entries_in_chain = (uint16_t)(first->entries_in_chain + ENTRIES_PER_LIST);
    } while (left > 0);
    return first;
}

void zip_sgl_free(struct zip_sgl *list)
{
    while (list) {
        struct zip_sgl *next = (struct zip_sgl *)(uintptr_t)list->next;
        free(list);
        list = next;
    }
}
