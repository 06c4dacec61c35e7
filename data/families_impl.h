/* Private to data/: the families of families.def. */
#ifndef FAMILIES_IMPL_H
#define FAMILIES_IMPL_H
#include "data/pipeline_impl.h"

typedef struct Family {
    const char *name;
    bool nfc;
    int digits;
    RegexDialect dialect;
    const char *pattern[3]; /* first NULL: ByteLevel's own */
    int32_t ranks;          /* of the published rank file, 0 = there is none */
    const char *specials;
} Family;
/* NULL with e for an unknown name. */
const Family *family_named(const char *name, Arena *a, Err *e);
#endif
