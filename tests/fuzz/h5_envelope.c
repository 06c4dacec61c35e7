/* tests/fuzz/h5_envelope.c: what is checked of our HDF5 files before the library sees them. */
#include "formats/formats.h"
#include "tests/fuzz/fuzz_impl.h"

FUZZ(h5_envelope, 1)
{
    int64_t step;
    (void)a;
    h5_check_envelope(fuzz_file("x.h5", data, n), &step, e);
}
