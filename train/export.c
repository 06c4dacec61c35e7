/* train/export.c: the state of a run as a model file, read back and compared: the artefact of a stage. */
#include "train/run_impl.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static BakeState state_of(const Run *r) { return (BakeState){.m = &r->model, .q = &r->qat}; }

/* The state as a file, read back and compared. */
static bool write_one(Run *r, const char *path, const char *format, DType dtype, double shard_gb,
                      BakeReport *b, Err *e)
{
    Arena tmp = {.name = "export"};
    const BakeState s = state_of(r);
    OutModel packed, effective;
    if (bake(&s, dtype, &packed, &effective, &tmp, e)) {
        const bool hdf5 = !strcmp(format, "hdf5"), holds_codes = hdf5 || !strcmp(format, "safetensors");
        if (hdf5 && r->prune.n) prune_pack(&r->prune, &packed, &tmp, e);
        OutModel *m = holds_codes ? &packed : &effective;
        m->run_yaml = r->st.run_yaml;
        m->step = r->st.step;
        if (!e->code && bake_write(path, format, m, (int64_t)(shard_gb * 1e9), e))
            bake_verify(&s, path, &effective, b, e);
    }
    arena_free(&tmp);
    return !e->code;
}

bool run_bake(Run *r, const char *path, BakeReport *b, Err *e)
{
    return write_one(r, path, "hdf5", DT_F32, 5, b, e);
}

/* Floats first, into a file beside the wanted one, then rounded by the same code as `pare quantize`. */
bool run_export_rounded(Run *r, int i, const char *path, bool *done, Err *e)
{
    Arena tmp = {.name = "export"};
    char key[48];
    BakeReport b;
    QuantizeReport q;
    snprintf(key, sizeof key, "export[%d].quantize", i);
    *done = config_was_set(r->c->doc, key);
    if (!*done) return true;
    const char *floats = arena_printf(&tmp, e, "%s.tmp.%ld.h5", path, (long)getpid());
    if (floats && write_one(r, floats, "hdf5", DT_F32, 5, &b, e) &&
        quantize_file(floats, path, &r->c->export.v[i].quantize, false, &q, &tmp, e))
        log_info("exported %s: %d tensors rounded, read back and equal", path, q.n);
    if (floats) unlink(floats);
    arena_free(&tmp);
    return !e->code || err_prefix(e, "export[%d]", i);
}
