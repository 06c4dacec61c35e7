/* core/config_table.h: CFG_* as ConfigField initialisers for the struct named by CFG_STRUCT (see
 * core/config.h). */
#define CFG_AT(name) offsetof(CFG_STRUCT, name), sizeof(((CFG_STRUCT *)0)->name)
#define CFG_ENUM(name, def, values, later, help)                                                             \
    {#name, CFG_T_ENUM, CFG_AT(name), def, 0, 0, values, later, help, NULL},
#define CFG_BOOL(name, def, help) {#name, CFG_T_BOOL, CFG_AT(name), #def, 0, 1, NULL, NULL, help, NULL},
#define CFG_INT(name, def, lo, hi, help)                                                                     \
    {#name, CFG_T_INT, CFG_AT(name), #def, (double)(lo), (double)(hi), NULL, NULL, help, NULL},
#define CFG_FLOAT(name, def, lo, hi, help)                                                                   \
    {#name, CFG_T_FLOAT, CFG_AT(name), #def, (double)(lo), (double)(hi), NULL, NULL, help, NULL},
#define CFG_FLOAT_AUTO(name, def, lo, hi, help)                                                              \
    {#name, CFG_T_FLOAT, CFG_AT(name), #def, (double)(lo), (double)(hi), "auto", NULL, help, NULL},
#define CFG_BOOL_ONLY(name, def, help) {#name, CFG_T_BOOL, CFG_AT(name), #def, 0, 1, NULL, "*", help, NULL},
#define CFG_INT_ONLY(name, def, help)                                                                        \
    {#name, CFG_T_INT, CFG_AT(name), #def, CFG_ANY_LO, CFG_ANY_HI, NULL, "*", help, NULL},
#define CFG_FLOAT_ONLY(name, def, help)                                                                      \
    {#name, CFG_T_FLOAT, CFG_AT(name), #def, CFG_ANY_LO, CFG_ANY_HI, NULL, "*", help, NULL},
#define CFG_STR(name, def, help) {#name, CFG_T_STR, CFG_AT(name), def, 0, 0, NULL, NULL, help, NULL},
#define CFG_STRS(name, def, help) {#name, CFG_T_STRS, CFG_AT(name), def, 0, 0, NULL, NULL, help, NULL},
#define CFG_INTS(name, def, lo, hi, help)                                                                    \
    {#name, CFG_T_INTS, CFG_AT(name), def, (double)(lo), (double)(hi), NULL, NULL, help, NULL},
#define CFG_FLOATS(name, def, help)                                                                          \
    {#name, CFG_T_FLOATS, CFG_AT(name), def, CFG_ANY_LO, CFG_ANY_HI, NULL, NULL, help, NULL},
#define CFG_MAP(name, Struct, section, help)                                                                 \
    {#name, CFG_T_MAP, CFG_AT(name), NULL, 0, 0, NULL, NULL, help, section},
#define CFG_MAP_OPT(name, Struct, section, help)                                                             \
    {#name, CFG_T_MAP, CFG_AT(name), NULL, 0, 0, "optional", NULL, help, section},
#define CFG_LIST(name, Struct, section, help)                                                                \
    {#name, CFG_T_LIST, offsetof(CFG_STRUCT, name), sizeof(Struct), NULL, 0, 0, NULL, NULL, help, section},
#define CFG_RAW(name, help) {#name, CFG_T_RAW, CFG_AT(name), NULL, 0, 0, NULL, NULL, help, NULL},
#define CFG_LATER(name, help) {#name, CFG_T_LATER, 0, 0, NULL, 0, 0, NULL, NULL, help, NULL},
