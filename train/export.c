/* train/export.c: the state of a run as a model file, read back and compared: the artefact of a stage. */
#include "train/run_impl.h"
#include <string.h>

static BakeState state_of(const Run *r) { return (BakeState){.m = &r->model, .q = &r->qat}; }

/* The state as a file, read back and compared. */
static bool write_one(Run *r, const char *path, const char *format, DType dtype, double shard_gb,
                      BakeReport *b, Err *e)
{
    Arena tmp = {.name = "export"};
    const BakeState s = state_of(r);
    OutModel packed, effective;
    if (bake(&s, dtype, &packed, &effective, &tmp, e)) {
        const bool holds_codes = !strcmp(format, "hdf5") || !strcmp(format, "safetensors");
        OutModel *m = holds_codes ? &packed : &effective;
        m->run_yaml = r->st.run_yaml;
        m->step = r->st.step;
        if (bake_write(path, format, m, (int64_t)(shard_gb * 1e9), e))
            bake_verify(&s, path, &effective, b, e);
    }
    arena_free(&tmp);
    return !e->code;
}

bool run_bake(Run *r, const char *path, BakeReport *b, Err *e)
{
    return write_one(r, path, "hdf5", DT_F32, 5, b, e);
}
