/* tests/fuzz/config_yaml.c: a configuration file, parsed and filled in. Anchors may repeat a value: 256 bytes
 * for a value, of which CFG_MAX_NODES may be made of a small file, are the limit. */
#include "core/config.h"
#include "data/data.h"
#include "tests/fuzz/fuzz_impl.h"

FUZZ(config_yaml, 4096)
{
    DataConfig out;
    ConfigDoc *d = config_parse(a, fuzz_file("x.yaml", data, n), 0, NULL, e);
    if (d) config_fill(d, data_section(), &out, e);
}
