/* core/core.h: floor 0. Errors, arenas, element types, random numbers, threads, log.
 *
 *   Err e = {0};  Arena run = {.name = "run"};
 *   float *w = arena_alloc(&run, n * sizeof *w, &e);          // zeroed, 64-byte aligned; NULL with e set
 *   rng_normal_f32(w, n, (RngKey){.seed = 42, .stream = rng_stream("wte.weight")}, 0.0, 0.02);
 *   if (e.code) { log_error("%s", e.msg); return e.code; }    // the first error wins, later ones do nothing
 *   arena_free(&run);                                         // nothing is freed piecemeal
 *
 * The configuration layer has its own header, core/config.h. */
#ifndef CORE_H
#define CORE_H
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- err.c: error codes are the process's exit codes (product contract) -------------------------------- */
typedef enum {
    ERR_OK = 0,
    ERR_FAIL = 1,
    ERR_USAGE = 2,
    ERR_CORRUPT = 3,
    ERR_MEMORY = 4,
    ERR_DEVICE = 5,
    ERR_INTERRUPTED = 130
} ErrCode;
typedef struct Err {
    ErrCode code;
    const char *file;
    int line;
    char msg[2048];
} Err;
#define err_set(e, code, ...) err_set_at((e), (code), __FILE__, __LINE__, __VA_ARGS__)
/* First error wins: does nothing when e already holds one. Always returns false, so `return err_set(...)`
 * reads well. */
bool err_set_at(Err *e, ErrCode code, const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
/* Puts "context: " before the message of an error already set (does nothing otherwise). Returns false. */
bool err_prefix(Err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- arena.c: the only malloc -------------------------------------------------------------------------- */
typedef struct ArenaBlock ArenaBlock;
/* spare: blocks dropped by arena_release, kept for the next allocations. One thread at a time per arena. */
typedef struct Arena {
    const char *name;
    ArenaBlock *head;
    size_t used, peak, reserved;
    ArenaBlock *spare;
} Arena;
typedef struct ArenaMark {
    ArenaBlock *head;
    size_t head_used, used;
} ArenaMark;
/* bytes: any size (0 gives a valid pointer). Zeroed, 64-byte aligned. NULL only when memory is out: e then
 * holds ERR_MEMORY with the arena's name and the bytes asked for. With e already failed it does nothing and
 * returns NULL. */
void *arena_alloc(Arena *a, size_t bytes, Err *e);
/* A larger copy of old (old stays valid, its room is given back at arena_free). */
void *arena_grow(Arena *a, const void *old, size_t old_bytes, size_t new_bytes, Err *e);
char *arena_strdup(Arena *a, const char *s, Err *e);
char *arena_strndup(Arena *a, const char *s, size_t n, Err *e);
char *arena_printf(Arena *a, Err *e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
ArenaMark arena_mark(const Arena *a);
void arena_release(Arena *a, ArenaMark m); /* drop everything allocated after the mark */
void arena_free(Arena *a);                 /* drop everything */
/* Test switch: the n-th allocation from now fails (0 = off). Returns how many allocations were made since
 * last set. */
long arena_fail_at(long n);
/* Whole-file read (a NUL is put behind the last byte, not counted). Error names the path and errno. */
char *file_read(Arena *a, const char *path, size_t *bytes, Err *e);
/* Read-only mapping of a whole file; unmap with file_unmap. Empty file: data NULL, bytes 0, no error. */
typedef struct FileMap {
    const unsigned char *data;
    size_t bytes;
} FileMap;
bool file_map(FileMap *m, const char *path, Err *e);
void file_unmap(FileMap *m);
/* temp + write + fsync + rename + fsync of the folder; nothing is left behind on failure (full disk
 * included). */
bool file_write_atomic(const char *path, const void *data, size_t bytes, Err *e);
bool file_exists(const char *path);
bool dir_make(const char *path, Err *e); /* mkdir -p */
const char *path_join(Arena *a, const char *dir, const char *name, Err *e);

/* ---- dtype.c: storage element types and their codecs; arithmetic is float (double in checks) ----------- */
typedef enum {
    DT_F32,
    DT_F64,
    DT_F16,
    DT_BF16,
    DT_F8_E4M3,
    DT_F8_E5M2,
    DT_I8,
    DT_U8,
    DT_I16,
    DT_U16,
    DT_I32,
    DT_U32,
    DT_I64,
    DT_U64,
    DT_BOOL,
    DT_COUNT
} DType;
size_t dtype_size(DType t);
const char *dtype_name(DType t);              /* safetensors spelling: "F32", "BF16", "F8_E4M3", ... */
const char *dtype_long_name(DType t);         /* "float32", "bfloat16", ... */
bool dtype_parse(const char *name, DType *t); /* either spelling */
/* n elements each. to_f32 is exact for all types up to 24 significant bits; from_f32 rounds to nearest even
 * and saturates for F16 is NOT done (overflow gives inf as IEEE), F8 saturates (formats.md 1.3), NaN stays
 * NaN. */
bool dtype_to_f32(float *dst, const void *src, DType t, size_t n);
bool dtype_from_f32(void *dst, DType t, const float *src, size_t n);
uint16_t bf16_from_f32(float x);
float f32_from_bf16(uint16_t x);
uint16_t f16_from_f32(float x);
float f32_from_f16(uint16_t x);
uint8_t e4m3_from_f32(float x);
float f32_from_e4m3(uint8_t x);
uint8_t e5m2_from_f32(float x);
float f32_from_e5m2(uint8_t x);

/* ---- codec.c, codec_element.c, codec_scale.c: number formats of compressed tensors --------------------- */
/* A matrix x (rows,cols) is cut into blocks of block_rows x block_cols, each with one scale; grids of scales
 * are (R,G), row-major. All of this is exact in IEEE arithmetic, whatever the threads do with subnormals, and
 *     quant_fake(x) == quant_decode(quant_encode(x))       bit for bit, for every input.
 * A block that holds NaN or an infinity has the scale NaN and decodes to NaN (NVFP4: the whole tensor). */
typedef enum { ELEM_INT, ELEM_E4M3, ELEM_E5M2, ELEM_E2M1, ELEM_NF4 } QuantElem;
typedef enum { SCALE_F32, SCALE_E8M0, SCALE_E4M3 } QuantScaleKind;
typedef enum { MX_FLOOR, MX_CEIL, MX_BUMP_1P75 } MxRule; /* names of formats.md 1.6 */
/* One scale, ready for its elements: code = element(x / div), value = element * mul * tensor. */
typedef struct QuantRun {
    float div, mul, tensor, lo, hi; /* lo, hi: of integers, the zero point already taken off */
    int zero;
} QuantRun;
typedef struct QuantFormat {
    const char *name, *encoding;  /* in configs, in files */
    int bits, emax, block, group; /* codecs.def */
    QuantElem elem;
    QuantScaleKind scale;
    float max;
    /* n elements of one scale; codes one per byte */
    void (*encode)(uint8_t *code, const float *x, long n, const QuantRun *r);
    void (*decode)(float *y, const uint8_t *code, long n, const QuantRun *r);
    void (*fake)(float *y, const float *x, long n, const QuantRun *r);
} QuantFormat;
typedef struct QuantSpec {
    const QuantFormat *f;
    long block_rows, block_cols; /* 0 = all of them */
    bool asymmetric, full;       /* integers: zero point; [-2^(b-1), 2^(b-1)-1] instead of the narrow range */
    bool double_quant;           /* nf4 */
    bool search;                 /* scales of least squared error, amax (1 - i/20), i = 0..9 */
    MxRule rule;
} QuantSpec;
/* Scales as floats, exactly what the file's bytes decode to. dq_*: double quantisation, scale (R G). */
typedef struct QuantScales {
    long R, G;
    float *scale, *zero; /* (R,G); zero NULL unless asymmetric */
    float tensor;        /* NVFP4's second level, else 1 */
    uint8_t *dq_code;    /* (R G) */
    float *dq_scale;     /* (ceil(R G / 256)) */
    float dq_offset;
    /* A frozen weight's own bytes of its file instead of floats (scale, zero NULL then): scale i is
     * map[byte[i]], with dq_scale and dq_offset behind it where the scales are quantised themselves. */
    const uint8_t *byte, *zero_byte; /* (R,G) */
    const float *map;                /* (256) */
} QuantScales;
/* Exact only where multiply and add are not fused (core/); elsewhere within one ulp. */
static inline float quant_scale_at(const QuantScales *q, long at)
{
    if (!q->byte) return q->scale[at];
    const float part = q->map[q->byte[at]];
    if (!q->dq_scale) return part;
    const float scaled = part * q->dq_scale[at / 256];
    return scaled + q->dq_offset;
}
static inline float quant_zero_at(const QuantScales *q, long at)
{
    return q->zero_byte ? (float)q->zero_byte[at] : q->zero ? q->zero[at] : 0;
}
enum {
#define CODEC(name, ...) QUANT_##name,
#include "core/codecs.def"
#undef CODEC
    QUANT_COUNT
};
extern const QuantFormat quant_formats[]; /* [QUANT_COUNT], by QUANT_int8, ... */
extern const int n_quant_formats;
const QuantFormat *quant_format(const char *name); /* NULL = unknown */
const char *quant_names(void);                     /* "int8, int4, ..." */
const char *mx_rule_name(MxRule r);
const float *nf4_levels(void);                    /* (16) */
const float *dynamic_map(void);                   /* (256), sorted: double quantisation's codes */
const float *quant_scale_map(QuantScaleKind k);   /* (256): what a scale's byte, E8M0 or E4M3, means */
long quant_rows(const QuantSpec *s, long rows);   /* R */
long quant_groups(const QuantSpec *s, long cols); /* G */
/* codes of a row: the last block of block formats is whole */
long quant_stored_cols(const QuantSpec *s, long cols);
size_t quant_row_bytes(const QuantSpec *s, long cols);       /* packed codes of a row */
double quant_bits(const QuantSpec *s, long rows, long cols); /* stored bits per weight, scales included */
bool quant_scales_alloc(QuantScales *q, const QuantSpec *s, long rows, long cols, Arena *a, Err *e);
/* Scales of x (rows,cols): quant_tensor_scale (from the largest magnitude), then scale rows [r0, r1) in any
 * order or in parallel, then quant_scales_end. quant_scales does all three. */
float quant_amax(const float *x, long n); /* largest |x|; inf and NaN come through */
void quant_tensor_scale(QuantScales *q, const QuantSpec *s, float amax);
void quant_scale_rows(QuantScales *q, const QuantSpec *s, const float *x, long rows, long cols, long r0,
                      long r1);
void quant_scales_end(QuantScales *q, const QuantSpec *s);
void quant_scales(QuantScales *q, const QuantSpec *s, const float *x, long rows, long cols);
/* The scale (and zero) a block with this range gets: for histories of ranges. */
void quant_scale_of(const QuantSpec *s, float lo, float hi, float tensor, float *scale, float *zero);
/* Rows [r0, r1) of a matrix of rows x cols; y may be x. codes (rows, quant_row_bytes). */
void quant_fake(float *y, const float *x, const QuantSpec *s, const QuantScales *q, long cols, long r0,
                long r1);
void quant_encode(uint8_t *codes, const float *x, const QuantSpec *s, const QuantScales *q, long cols,
                  long r0, long r1);
void quant_decode(float *y, const uint8_t *codes, const QuantSpec *s, const QuantScales *q, long cols,
                  long r0, long r1);
/* Row r of a coded matrix into y (cols); row: the packed codes of that row. */
void quant_decode_row(float *y, const uint8_t *row, const QuantSpec *s, const QuantScales *q, long cols,
                      long r);
/* n elements under one scale. */
void quant_fake_run(float *y, const float *x, long n, const QuantSpec *s, const QuantRun *r);
QuantRun quant_run(const QuantSpec *s, const QuantScales *q, long row, long group);
/* The casts themselves: nearest, ties to even, saturating. e2m1: NaN is +6, as CUDA has it. */
uint8_t e2m1_from_f32(float x);
float f32_from_e2m1(uint8_t x); /* the low four bits count */
uint8_t e8m0_from_f32(float x); /* of a power of two 2^-127..2^127; anything else, NaN too: 0xFF */
float f32_from_e8m0(uint8_t x); /* 0xFF: NaN */

/* ---- rng.c: Philox4x32-10, counter based: a number depends on (seed, step, stream, sample, element), on
 * nothing else */
typedef struct RngKey {
    uint64_t seed;
    uint32_t step, stream, sample;
} RngKey;
/* published vectors in tests */
void philox4x32_10(uint32_t out[4], const uint32_t ctr[4], const uint32_t key[2]);
uint32_t rng_stream(const char *name); /* hash of a stream's name (low 32 bits of XXH3-64) */
/* counter (element/4, step, stream, sample), word element%4 */
uint32_t rng_u32(RngKey k, uint32_t element);
double rng_uniform(RngKey k, uint32_t element); /* [0,1), 32 bits */
/* Box-Muller in double */
void rng_normal_f32(float *dst, size_t n, RngKey k, double mean, double std);
void rng_uniform_f32(float *dst, size_t n, RngKey k, double lo, double hi);
/* codec_random.c: quant_fake_run, but up or down at random, in the mean x: element i draws
 * (key, first + i). */
void quant_fake_random(float *y, const float *x, long n, const QuantSpec *s, const QuantRun *r, RngKey key,
                       uint32_t first);
/* seeded bijection of [0,n), Feistel */
uint64_t rng_permute(uint64_t i, uint64_t n, uint64_t seed, uint64_t epoch);
uint64_t hash64(const void *p, size_t n); /* XXH3-64 */
/* XXH3-128, canonical hex */
void hash128_hex(char out[33], const void *p, size_t n);

/* ---- threads.c ----------------------------------------------------------------------------------------- */
/* n = 0: cores in the affinity mask, capped by the cgroup quota. Sets flush-to-zero on every thread. Returns
 * the count. */
int threads_init(int n);
int threads_count(void);
/* Told the wall time of each step of a loop, tries now and then whether short steps are faster on one thread
 * (they are where other programs want the cores) and stays with the faster. Does nothing unless threads_init
 * chose the number itself. */
void threads_pace(double seconds);
/* Another loop begins, or the old one goes on: steps so far say nothing about those to come. */
void threads_pace_begin(void);
/* Elements [*lo, *hi) of slice i of n_slices over [0, n), in units of `unit`: fixed by the shape, never by
 * thread count. */
void slice_range(long n, long unit, int i, int n_slices, long *lo, long *hi);

/* ---- cpu.c: what this CPU offers, with the override PARE_ISA=portable|avx2|avx512 (never above the real */
typedef enum { ISA_PORTABLE, ISA_AVX2, ISA_AVX512 } Isa;
Isa cpu_isa(void);
const char *isa_name(Isa isa);
const char *cpu_features(void); /* "avx2 fma avx512f ... vnni bf16" for `pare doctor` */
double time_now(void);          /* monotonic seconds */

/* ---- gguf.c: the header of a GGUF file; of core because data/ (vocabulary) and formats/ both read it
 * ----- */
typedef enum {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64
} GgufType;
/* Inside the file: no NUL behind it. */
typedef struct GgufText {
    const char *s;
    size_t bytes;
} GgufText;
/* key: printable ASCII, 1 to 65535 bytes. item: type of the n items, the value's own where it is no array. */
typedef struct GgufValue {
    GgufText key;
    GgufType type, item;
    uint64_t n;
    const unsigned char *data; /* the items as in the file, bytes of them */
    size_t bytes;
} GgufValue;
/* name: printable ASCII, 1 to 63 bytes. dim: fastest first, 1 behind ndim. type: ggml's number. */
typedef struct GgufTensor {
    GgufText name;
    int ndim;
    uint32_t type;
    uint64_t dim[4], offset, bytes;
    const unsigned char *data;
} GgufTensor;
typedef struct Gguf {
    uint32_t version;
    size_t n_kv, n_tensor;
    GgufValue *kv;      /* [n_kv] in file order */
    GgufTensor *tensor; /* [n_tensor] in file order */
    const GgufText **by_key;
} Gguf;
/* data (bytes,) stays the caller's and must live as long as g. Errors name path and key or tensor. */
bool gguf_read(Gguf *g, const unsigned char *data, size_t bytes, const char *path, Arena *a, Err *e);
const GgufValue *gguf_find(const Gguf *g, const char *key); /* NULL = no such key */
/* Next string of a string or list of strings, *at 0 at first; false behind the last one and for other
 * types. */
bool gguf_string(const GgufValue *v, size_t *at, GgufText *t);
int64_t gguf_int(const GgufValue *v,
                 uint64_t i); /* item i < n of an integer or bool type; u64 above 2^63: -1 */
float gguf_f32(const GgufValue *v, uint64_t i); /* item i < n of type f32 */
const char *gguf_type_name(uint32_t type);      /* "Q4_0"; NULL = unknown */

/* ---- log.c: to stderr and, once opened, to a file; never to stdout ------------------------------------- */
typedef enum { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG } LogLevel;
/* The least important line shown; log_plain and log_progress count as LOG_INFO on the screen. */
void log_set_level(LogLevel level);
void log_default_level(LogLevel level); /* the same, unless log_set_level was called */
/* plain: the progress line is never rewritten in place. stamps off: no clock in the file. */
void log_shape(bool plain, bool stamps);
bool log_open(const char *path, bool append, Err *e); /* run.log */
void log_close(void);
void log_show_plain(bool on); /* off: log_plain writes to run.log only */
#define log_error(...) log_at(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_at(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_at(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)
/* adds time, level, newline */
void log_at(LogLevel level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* as is, newline added */
void log_plain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* one rewritten line at <= 10 Hz on a TTY, plain line otherwise */
void log_progress(const char *line);
#endif
