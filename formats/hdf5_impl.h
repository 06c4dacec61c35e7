/* formats/hdf5_impl.h: what the h5*.c files share; the only header that includes HDF5's own. */
#ifndef HDF5_IMPL_H
#define HDF5_IMPL_H
#include <hdf5.h>
#include "formats/formats_impl.h"

/* The user block (product.md 6.0): text at 0, u32 version at 16, u32 zero, u64 payload bytes at 24, XXH3-128
 * of the payload at 32, u64 step at 48, XXH3-64 of the first 504 bytes at 504, zeros elsewhere.
 * Little-endian; hashes canonical. */
enum { ENVELOPE = 4096, AT_VERSION = 16, AT_LENGTH = 24, AT_HASH = 32, AT_STEP = 48, AT_CHECK = 504 };
#define ENVELOPE_MAGIC "pare-checkpoint\n"

void h5_quiet(void); /* failures are remembered, not printed */
/* "message: reason" with HDF5's own reason, or the system's where HDF5 met one. Returns false. */
bool h5_error(Err *e, ErrCode code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
hid_t h5_type(DType t); /* file type; H5Tclose it */
bool h5_type_parse(hid_t type, DType *t);
hid_t h5_string_type(void); /* vlen UTF-8; H5Tclose it */

/* For datasets that are written in pieces (h5table.c): the file, with room for bytes more and the groups of
 * path made (negative: h has failed); then the dataset's entry in the content hash and its three attributes;
 * h5_fail makes h fail with HDF5's reason. */
hid_t h5_begin(H5Out *h, const char *path, uint64_t bytes);
bool h5_describe(H5Out *h, hid_t d, const char *path, DType t, uint64_t sum, bool in_out);
bool h5_fail(H5Out *h, const char *path);
hid_t h5_dataset(H5In *h, const char *path, Err *e); /* H5Dclose it; negative with e set */
bool h5_corrupt(const H5In *h, Err *e, const char *what, const char *object);

/* block: ENVELOPE bytes */
void envelope_build(unsigned char *block, const unsigned char *payload, uint64_t bytes, int64_t step);
bool envelope_check(const FileMap *m, const char *path, int64_t *step, Err *e);
#endif
