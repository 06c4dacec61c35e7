# pare: `make help` lists the targets. Every variant has its own folder build/<variant>/, so nothing needs a clean.
#
#   V=release|debug|asan|portable|fuzz  the variant            CC=gcc|clang
#   DNNL=0 BLAS=builtin              build without oneDNN / without the OpenBLAS loader
#   DIRS="core kernels" TESTS=tests/test_x.c B=build/mine     build a part of the tree somewhere else
#   T="-k NAME -v"                   arguments of the test runner        DEPS=0   do not look for missing packages
#   VERBOSE=1                        show whole command lines

V ?= release
CC := $(if $(filter default,$(origin CC)),gcc,$(CC))
B ?= build/$(V)$(if $(findstring clang,$(CC)),-clang)
O = $(B)/obj
DIRS ?= core kernels autograd optim data formats model compress infer train
TESTS ?= $(wildcard tests/*.c)
PREFIX ?= /usr/local
DEPS ?= 1
FUZZ_SECONDS ?= 60
T ?=

.DEFAULT_GOAL := all
# The targets that call make again use all cores unless a number was given.
JOBS = $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(shell nproc 2>/dev/null || echo 2))
.DELETE_ON_ERROR:
.SUFFIXES:

# ---- what the machine and the compiler are ------------------------------------------------------------------------
TRIPLE := $(shell $(CC) -dumpmachine 2>/dev/null)
PKG := hdf5 yaml-0.1 jansson libpcre2-8 libxxhash libutf8proc lapacke
HDF5 := $(shell pkg-config --exists hdf5-serial 2>/dev/null && echo hdf5-serial || echo hdf5)
HAVE_PKG := $(strip $(foreach p,$(PKG:hdf5=$(HDF5)),$(shell pkg-config --exists $(p) 2>/dev/null && echo $(p))))
PKG_CFLAGS := $(if $(HAVE_PKG),$(patsubst -I%,-isystem %,$(filter-out -I/usr/include/%-linux-gnu,\
    $(shell pkg-config --cflags $(HAVE_PKG)))))
PKG_LIBS := $(if $(HAVE_PKG),$(shell pkg-config --libs $(HAVE_PKG)))

PORTABLE := $(filter portable fuzz,$(V))
BLAS ?= $(if $(PORTABLE),builtin,auto)
DNNL ?= $(if $(PORTABLE),0,1)
HAVE_DNNL := $(if $(filter 1,$(DNNL)),$(shell echo '\#include <dnnl.h>' | $(CC) -E -x c - >/dev/null 2>&1 && echo 1))
ISA := $(if $(PORTABLE),,$(findstring x86_64,$(TRIPLE)))

# ---- flags ---------------------------------------------------------------------------------------------------------
WARN := -Wall -Wextra -Wconversion -Wshadow -Werror
MODE_release := -O3 -g
MODE_portable := -O3 -g -DPORTABLE
MODE_debug := -O0 -g
MODE_asan := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
MODE_fuzz := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -Wno-pass-failed -DPORTABLE
MODE := $(or $(MODE_$(V)),$(error unknown variant V=$(V): release, debug, asan, portable or fuzz))
# The two -fno-... free sqrt and comparisons for vectors and keep isnan, infinities and rounding as they are.
CFLAGS_ALL := $(MODE) -std=gnu11 $(WARN) -fopenmp -fvisibility=hidden -fno-math-errno -fno-trapping-math \
    -ffile-prefix-map=$(CURDIR)=. -I. $(PKG_CFLAGS) $(if $(HAVE_DNNL),-DHAVE_DNNL) \
    $(if $(filter builtin,$(BLAS)),-DBLAS_BUILTIN) $(CFLAGS)
LDLIBS_ALL := $(PKG_LIBS) $(if $(HAVE_DNNL),-ldnnl) -lz -ldl -pthread -lm $(LDLIBS)
LINK = $(CC) $(MODE) -fopenmp $(LDFLAGS) -o $@
AVX512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c
AVX2 := -mavx2 -mfma -mf16c

# ---- which file is compiled how ------------------------------------------------------------------------------------
# Reference kernels twice (float, double); tables, library and instruction-set kernels once.
KERNEL := $(if $(filter kernels,$(DIRS)),$(wildcard kernels/*.c))
ONCE := $(filter %_avx512.c %_avx2.c %_dnnl.c %_openblas.c %_builtin.c %_host.c,$(KERNEL)) \
    $(filter kernels/table_% kernels/gemm_pack%,$(KERNEL))
LEFT_OUT := $(if $(ISA),,%_avx512.c %_avx2.c) $(if $(HAVE_DNNL),,%_dnnl.c) $(if $(filter builtin,$(BLAS)),%_openblas.c)
REFERENCE := $(filter-out $(ONCE),$(KERNEL))
SOURCE := $(foreach d,$(filter-out kernels,$(DIRS)),$(wildcard $(d)/*.c)) $(filter-out $(LEFT_OUT),$(sort $(ONCE)))
OBJ := $(SOURCE:%.c=$(O)/%.o) $(REFERENCE:%.c=$(O)/%.f32.o) $(REFERENCE:%.c=$(O)/%.f64.o)
TEST_OBJ := $(TESTS:%.c=$(O)/%.o)
BENCH_OBJ := $(patsubst %.c,$(O)/%.o,$(filter-out $(if $(ISA),,%_avx512.c %_avx2.c),$(wildcard bench/*.c)))
MAIN := $(wildcard main.c)

Q := $(if $(VERBOSE),,@)
SAY = $(if $(VERBOSE),,@printf '  %-4s %s\n' '$(1)' $(2))

all: $(if $(MAIN),$(B)/pare,$(B)/libpare.a) ## build the program (the default): build/release/pare

$(B)/pare: $(O)/main.o $(B)/libpare.a
	$(call SAY,link,$@)
	$(Q)$(LINK) $^ $(LDLIBS_ALL)
$(B)/tests: $(TEST_OBJ) $(B)/libpare.a
	$(call SAY,link,$@)
	$(Q)$(LINK) $(sort $(TEST_OBJ)) $(B)/libpare.a $(LDLIBS_ALL)
$(B)/bench: $(BENCH_OBJ) $(B)/libpare.a
	$(call SAY,link,$@)
	$(Q)$(LINK) $(BENCH_OBJ) $(B)/libpare.a $(LDLIBS_ALL)
$(B)/libpare.a: $(OBJ) $(B)/objects
	@rm -f $@
	$(Q)$(AR) rcs $@ $(OBJ)

$(O)/%_avx512.o: CPU_FLAGS = $(AVX512)
$(O)/%_avx2.o: CPU_FLAGS = $(AVX2)
# fake(x) and decode(encode(x)) must round at the same places: no fused multiply-add.
$(O)/core/codec%.o: CPU_FLAGS = -ffp-contract=off
COMPILE = $(Q)$(CC) $(CFLAGS_ALL) $(CPU_FLAGS) -MMD -MP -c -o $@ $<
$(O)/%.f32.o: %.c $(B)/flags
	@mkdir -p $(@D)
	$(call SAY,cc,$@)
	$(COMPILE) -DREAL=float -DREAL_SUFFIX=f32
$(O)/%.f64.o: %.c $(B)/flags
	@mkdir -p $(@D)
	$(call SAY,cc,$@)
	$(COMPILE) -DREAL=double -DREAL_SUFFIX=f64
$(O)/%.o: %.c $(B)/flags
	@mkdir -p $(@D)
	$(call SAY,cc,$@)
	$(COMPILE)

FUZZ := $(patsubst tests/fuzz/%.c,$(B)/fuzz_%,$(wildcard tests/fuzz/*.c))
$(B)/fuzz_%: $(O)/tests/fuzz/%.o $(B)/libpare.a
	$(LINK) -fsanitize=fuzzer $^ $(LDLIBS_ALL)
$(O)/tests/fuzz/%.o: CPU_FLAGS = -DLIBFUZZER
.SECONDARY: $(patsubst tests/fuzz/%.c,$(O)/tests/fuzz/%.o,$(wildcard tests/fuzz/*.c))
fuzz-targets: $(FUZZ)

# Rewritten only when the text changes: new flags rebuild everything, a file added or removed rebuilds the archive.
stamp = mkdir -p $(@D) && echo '$(1)' | cmp -s - $@ || echo '$(1)' >$@
$(B)/flags: FORCE
	@$(call stamp,$(CC) $(CFLAGS_ALL))
$(B)/objects: FORCE
	@$(call stamp,$(OBJ))
FORCE:

-include $(wildcard $(O)/*.d $(O)/*/*.d $(O)/*/*/*.d)

# ---- what people call ----------------------------------------------------------------------------------------------
# A second make, so that libraries that `deps` has just installed are seen.
deps: ## install what is missing (as root or with sudo), saying what
	@$(if $(filter 0,$(DEPS)),:,scripts/deps.sh)
test: deps ## build and run all tests; the last line counts them (T="-k NAME" for some)
	@$(MAKE) $(JOBS) --no-print-directory $(B)/tests $(if $(MAIN),$(B)/pare)
	@$(B)/tests $(T)
demo: deps ## teach a student from a pretrained teacher and print the table
	@$(MAKE) $(JOBS) --no-print-directory $(B)/pare
	@scripts/demo.sh $(B)/pare
experiments: deps ## run configs/experiments into docs/results.md, hours (E="e1 e8" for some, MORE="train.max_steps=5" tries)
	@$(MAKE) $(JOBS) --no-print-directory $(B)/pare
	@MORE="$(MORE)" scripts/experiments.sh $(B)/pare $(E)
bench: deps ## measure (BENCH="ops train" for a part, QUICK=1 for a short run, PEER_PYTHON=... for PyTorch)
	@$(MAKE) $(JOBS) --no-print-directory $(B)/bench $(B)/pare
	@$(B)/bench --pare=$(B)/pare $(if $(filter-out 0,$(QUICK)),--quick) $(if $(CPU_TIME),--cpu-time) $(if $(WAIT),--wait=$(WAIT)) \
	    $(BENCH)
fuzz: deps ## every strict parser under libFuzzer (clang), FUZZ_SECONDS=60 each, one after the other
	@$(MAKE) $(JOBS) --no-print-directory V=fuzz CC=clang DIRS="core kernels data formats model" fuzz-targets
	@scripts/fuzz.sh build/fuzz-clang $(FUZZ_SECONDS)
exhaustive: deps ## the FP8 and FP4 casts on all 2^32 floats against an exact slow reference (5 minutes of two cores)
	@$(MAKE) $(JOBS) --no-print-directory $(B)/tests
	@PARE_EXHAUSTIVE=1 $(B)/tests -k codec.exhaustive --timeout 3600
ops: ## the table of operators: formula, what backward reads, devices, tolerance
	@scripts/ops.sh
style: ## the house rules: floors, banned functions, sizes
	@scripts/style.sh
oracle: $(B)/pare ## prove exports against transformers and h5py (needs Python)
	@tests/oracle/run.sh $(B)/pare
debug asan portable: ## a variant: program and tests in build/<variant>/
	@$(MAKE) $(JOBS) --no-print-directory V=$@ $(if $(MAIN),build/$@$(if $(findstring clang,$(CC)),-clang)/pare) \
	    build/$@$(if $(findstring clang,$(CC)),-clang)/tests
install: $(B)/pare ## into PREFIX (/usr/local), below DESTDIR
	install -D -m 755 $(B)/pare $(DESTDIR)$(PREFIX)/bin/pare
	install -D -m 644 LICENSE $(DESTDIR)$(PREFIX)/share/doc/pare/LICENSE
	$(foreach f,$(wildcard README.md docs/*.md),install -D -m 644 $(f) $(DESTDIR)$(PREFIX)/share/doc/pare/$(notdir $(f)) &&) :
uninstall: ## take it out again
	rm -f $(DESTDIR)$(PREFIX)/bin/pare
	rm -rf $(DESTDIR)$(PREFIX)/share/doc/pare
help: ## this list
	@sed -n 's/^\([a-z ]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | awk -F'\t' '{printf "  %-22s %s\n", $$1, $$2}'
	@echo '  variables              V=release|debug|asan|portable CC=gcc|clang DNNL=0 BLAS=builtin T="-k NAME -v" DEPS=0'
.PHONY: all deps test exhaustive demo experiments bench fuzz fuzz-targets ops style oracle debug asan portable install uninstall help FORCE
