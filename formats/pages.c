/* formats/pages.c: where a tensor's stored bytes lie, and giving their pages back. A model larger than memory
 * is converted tensor by tensor: what was read is dropped, and comes back from the file if it is read
 * again. */
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>
#include "formats/formats_impl.h"

bool formats_mapped(const TensorFile *f, const FileTensor *t)
{
    const FormatsImpl *im = f->impl;
    if (!t->data || !t->bytes) return false;
    for (int i = 0; i < f->n_map; i++)
        if (t->data >= f->map[i].data && t->data + t->bytes <= f->map[i].data + f->map[i].bytes) return true;
    return im && im->h5 && h5_owns(im->h5, t->data, t->bytes);
}

void pages_drop(const unsigned char *p, size_t bytes)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    /* whole pages only: the ends may hold a neighbour's bytes */
    uintptr_t lo = ((uintptr_t)p + page - 1) & ~(page - 1), hi = ((uintptr_t)p + bytes) & ~(page - 1);
    if (lo < hi) madvise((void *)lo, hi - lo, MADV_DONTNEED);
}

void formats_drop(const TensorFile *f, const FileTensor *t)
{
    if (formats_mapped(f, t)) pages_drop(t->data, t->bytes);
}
