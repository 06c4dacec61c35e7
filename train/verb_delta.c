/* train/verb_delta.c: `pare delta make BASE TUNED OUT | apply BASE DELTA OUT | revert TUNED DELTA OUT |
 * verify DELTA [BASE]`. */
#include <string.h>
#include "train/verb_impl.h"

static int usage(Args *x)
{
    err_set(x->e, ERR_USAGE,
            "delta make BASE TUNED OUT, apply BASE DELTA OUT, revert TUNED DELTA OUT, verify DELTA [BASE]");
    return 1;
}

int verb_delta(Args *x)
{
    const char *what = x->pos[0];
    DeltaReport r;
    threads_init(0);
    if (!strcmp(what, "verify")) {
        if (x->n_pos < 2 || x->n_pos > 3) return usage(x);
        if (!delta_verify(x->pos[1], x->n_pos > 2 ? args_path(x, x->pos[2]) : NULL, &r, x->e)) return 1;
        log_info("%s is whole%s", x->pos[1], x->n_pos > 2 ? ", fits the base and gives the tuned model" : "");
        return 0;
    }
    if (x->n_pos != 4) return usage(x);
    const char *first = args_path(x, x->pos[1]), *out = x->pos[3];
    if (!strcmp(what, "make")) {
        if (!delta_make(first, args_path(x, x->pos[2]), out, &r, x->e)) return 1;
        log_info("wrote %s, %lld bytes: %d of %d tensors, %lld of %lld values changed%s", out,
                 (long long)r.bytes, r.changed, r.tensors, (long long)r.changed_values, (long long)r.values,
                 r.state ? "; masks, scales or adapters beside them" : "");
    } else if (!strcmp(what, "apply")) {
        if (!delta_apply(first, x->pos[2], out, &r, x->e)) return 1;
        log_info("wrote %s: the tuned model, by its content hash", out);
    } else if (!strcmp(what, "revert")) {
        if (!delta_revert(first, x->pos[2], out, &r, x->e)) return 1;
        log_info("wrote %s: the base, by its content hash", out);
    } else return usage(x);
    return 0;
}
