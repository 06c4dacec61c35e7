/* core/config_fields.h: CFG_* as struct members; include a .def after it, then core/config_undef.h (see
 * core/config.h). */
#define CFG_ENUM(name, def, values, later, help) const char *name;
#define CFG_BOOL(name, def, help) bool name;
#define CFG_INT(name, def, lo, hi, help) int64_t name;
#define CFG_FLOAT(name, def, lo, hi, help) double name;
#define CFG_FLOAT_AUTO(name, def, lo, hi, help) double name;
#define CFG_BOOL_ONLY(name, def, help) bool name;
#define CFG_INT_ONLY(name, def, help) int64_t name;
#define CFG_FLOAT_ONLY(name, def, help) double name;
#define CFG_STR(name, def, help) const char *name;
#define CFG_STRS(name, def, help) ConfigStrs name;
#define CFG_INTS(name, def, lo, hi, help) ConfigInts name;
#define CFG_FLOATS(name, def, help) ConfigFloats name;
#define CFG_MAP(name, Struct, section, help) Struct name;
#define CFG_MAP_OPT(name, Struct, section, help) Struct name;
#define CFG_LIST(name, Struct, section, help)                                                                \
    struct {                                                                                                 \
        int n;                                                                                               \
        Struct *v;                                                                                           \
    } name;
#define CFG_RAW(name, help) const ConfigNode *name;
#define CFG_LATER(name, help)
