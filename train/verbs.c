/* train/verbs.c: the verbs and their options; --help and the parser are made from these tables. */
#include "train/verb_impl.h"

#define END                                                                                                  \
    {                                                                                                        \
        NULL, NULL, NULL, 0                                                                                  \
    }
/* Of every verb that computes with a model. */
#define ADAPTER                                                                                              \
    {"adapter", "[NAME=]P", "a PEFT folder, an adapter file or a training state; repeatable, they add up",   \
     0},                                                                                                     \
    {                                                                                                        \
        "force", NULL, "take an adapter of another base", 0                                                  \
    }
#define TOKENIZER                                                                                            \
    {"tokenizer", "P", "its file or folder (default: the model's own)", 0},                                  \
    {                                                                                                        \
        "pattern", "FAMILY", "how it cuts text, where its file does not say: rank files, GGUF without pre",  \
            0                                                                                                \
    }
/* Of every verb that may use a file's codes as they are. */
#define DENSE                                                                                                \
    {                                                                                                        \
        "dense", NULL, "decode weights stored as codes; else they run packed", 0                             \
    }
static const Option o_train[] = {
    {"resume", "?", "auto (default) or a checkpoint", 0},
    {"steps", "N", "train.max_steps", 0},
    {"overwrite", NULL, "start over in a folder that holds a run", 0},
    {"dry-run", NULL, "build everything, one step, write nothing", 'n'},
    {"arms", NULL, "run every arm of `arms` with every seed and print the table", 0},
    {"set", "K=V", "an override, as key=value", 0},
    {"json", NULL, "one JSON object on stdout", 0},
    END};
static const Option o_set[] = {{"set", "K=V", "an override, as key=value", 0}, END};
static const Option o_eval[] = {
    {"data", "FILE", "text, jsonl or tokens; a glob is one text", 0},
    {"field", "K", "json key of the text", 0},
    {"prompt-field", "K", "json key of the prompt: only responses count", 0},
    {"response-field", "K", "json key of the response", 0},
    {"messages-field", "K", "json key of a chat", 0},
    {"split", "S", "part of the data, as train[95%:]", 0},
    TOKENIZER,
    {"seq-len", "N", "window (default: the model's positions, at most 1024)", 0},
    {"protocol", "P", "val (default), concat-N, stride, llamacpp; of a task: llm.c, llama.cpp, lm-eval", 0},
    {"stride", "N", "of protocol stride", 0},
    {"task", "NAME=FILE", "hellaswag, lambada, multiple_choice: accuracy, as JSON", 0},
    {"no-bos", NULL, "tasks: without the BOS that the tokenizer adds", 0},
    {"limit", "N", "examples of a task at most", 0},
    {"details", "OUT", "one JSON line per example of a task", 0},
    ADAPTER,
    DENSE,
    {"against", "TEACHER", "adds KL and top-1 agreement", 0},
    {"set", "K=V", "an override", 0},
    {"json", NULL, "one JSON object on stdout", 0},
    END};
static const Option o_cache[] = {{"dry-run", NULL, "print the size, write nothing", 'n'},
                                 {"overwrite", NULL, "start over, whatever is there", 0},
                                 {"set", "K=V", "an override, as key=value", 0},
                                 {"json", NULL, "one JSON object on stdout", 0},
                                 END};
static const Option o_generate[] = {
    {"p", "TEXT", "prompt (default: BOS alone)", 'p'},
    {"n", "N", "new tokens (64)", 'n'},
    {"temp", "T", "temperature, 0 = greedy (0.8)", 0},
    {"top-k", "K", "0 = off (40)", 0},
    {"top-p", "P", "1 = off (0.95)", 0},
    {"min-p", "P", "0 = off", 0},
    {"repetition-penalty", "R", "1 = off", 0},
    {"seed", "S", "of the sampling (42)", 's'},
    TOKENIZER,
    ADAPTER,
    DENSE,
    {"use", "NAME", "one of the adapters, or none; repeatable: one after the other", 0},
    {"chat", NULL, "the prompt is a question; the chat template goes around it", 0},
    {"chat-template", "T", "instead of the tokenizer's own: a known name or a file", 0},
    {"system", "TEXT", "with --chat: the system text", 0},
    {"stats", NULL, "speed on stderr (always shown)", 0},
    {"json", NULL, "text, ids, speed as JSON", 0},
    END};
static const Option o_probe[] = {{"input", "F", "safetensors with input_ids [B,T], labels optional", 0},
                                 {"out", "F", "safetensors to write", 0},
                                 {"grad", NULL, "gradients of the mean loss", 0},
                                 {"taps", "GLOB", "activations by name", 0},
                                 ADAPTER,
    DENSE,
                                 END};
static const Option o_export[] = {
    {"format", "F", "hdf5, safetensors, hf, llama2c, peft, adapter (default: by OUT's suffix)", 0},
    {"dtype", "T", "float32, bfloat16, float16", 0},
    {"tokenizer", "P", "copied beside", 0},
    {"dry-run", NULL, "write nothing", 'n'},
    {"verify", NULL, "read back and compare (always done)", 0},
    ADAPTER,
    {"max-shard-size", "N", "hf: files of at most this size, such as 200MB (5GB)", 0},
    END};
static const Option o_quantize[] = {
    {"format", "F", "int8, int4, int3, int2, fp8_e4m3, fp8_e5m2, fp4_e2m1, nf4, mxfp8, mxfp4, nvfp4 (int4)",
     0},
    {"method", "M", "rtn: round to nearest", 0},
    {"group-size", "N", "columns that share a scale; -1 = a row", 0},
    {"include", "GLOB", "tensors (default: all linear ones); repeatable", 0},
    {"exclude", "GLOB", "tensors left alone; repeatable", 0},
    {"dry-run", NULL, "write nothing", 'n'},
    {"set", "K=V", "an override, such as quantize.symmetric=false", 0},
    {"json", NULL, "the table of errors on stdout", 0},
    END};
static const Option o_merge[] = {
    {"weights", "W,W", "of the adapters, in their order (1)", 0},
    {"scale", "S", "times every weight (1)", 0},
    {"dtype", "T", "float32, bfloat16, float16 (the base's)", 0},
    {"keep-zeros", NULL, "what is zero in the base stays zero: mask (W + s B A)", 0},
    {"dense", NULL, "a quantised base is written as floats", 0},
    {"force", NULL, "take an adapter of another base", 0},
    {"dry-run", NULL, "write nothing", 'n'},
    {"json", NULL, "the table on stdout", 0},
    END};
static const Option o_unmerge[] = {{"base", "MODEL", "its content hash is what must come out", 0}, END};
static const Option o_extract[] = {
    {"r", "N", "rank (16)", 'r'}, {"json", NULL, "the errors on stdout", 0}, END};
static const Option o_inspect[] = {{"trust-foreign", NULL, "also HDF5 that pare has not written", 0},
                                   {"json", NULL, "one JSON object on stdout", 0},
                                   END};
static const Option o_prune[] = {
    {"method", "M", "magnitude, random, snip, taylor, wanda, sparsegpt (magnitude)", 0},
    {"sparsity", "S", "share of zeros (0.5)", 0},
    {"structure", "T", "unstructured, 2:4, 4:8, block, row, head, ffn, layer", 0},
    {"scope", "P", "layer or global (auto: global for snip and taylor)", 0},
    {"include", "GLOB", "tensors (default: all linear ones); repeatable", 0},
    {"exclude", "GLOB", "tensors left alone; repeatable", 0},
    {"calibration", "FILE", "text for snip, taylor, wanda, sparsegpt (prune.calibration.data)", 0},
    {"tokenizer", "P", "tokenizer of that text (default: the model's)", 0},
    {"masks", "FILE", "the masks as .h5 too", 0},
    {"dry-run", NULL, "write nothing", 'n'},
    {"set", "K=V", "an override, such as prune.layer_floor=0.1", 0},
    {"json", NULL, "sparsity of every tensor on stdout", 0},
    END};
static const Option o_none[] = {END};
static const Option o_json[] = {{"json", NULL, "one JSON object on stdout", 0}, END};
static const Option o_data[] = {
    {"tokenizer", "P", "a tokenizer's file, a folder, or bytes", 0},
    {"pattern", "FAMILY", "how a rank file, a GGUF without pre, or train-tokenizer (gpt2) cuts text", 0},
    {"no-bos", NULL, "encode without what the tokenizer puts around a text", 0},
    {"vocab-size", "N", "train-tokenizer: tokens, specials and bytes included", 0},
    {"special", "A,B", "train-tokenizer: special tokens (<|endoftext|>)", 0},
    {"out", "F", "tokenize: .bin; pack: .h5; train-tokenizer: tokenizer.json", 0},
    {"field", "K", "json key of the text", 0},
    {"prompt-field", "K", "json key of the prompt", 0},
    {"response-field", "K", "json key of the response", 0},
    {"messages-field", "K", "json key of a chat", 0},
    {"split", "S", "part of the files, as train[:95%]", 0},
    {"resume", NULL, "tokenize: go on from OUT.part, an error when it cannot", 0},
    {"overwrite", NULL, "tokenize: start over even when OUT.part could go on", 0},
    {"n", "N", "inspect: documents shown (3)", 'n'},
    {"set", "K=V", "an override, as key=value", 0},
    {"json", NULL, "stats, tokenize, pack: always JSON", 0},
    END};
static const Option o_report[] = {{"out", "FILE", "the page (RUN/report.html; report.md lies beside it)", 0},
                                  {"svg", "FILE", "the curves of training and validation as one picture", 0},
                                  {"title", "TEXT", "the page's heading", 0},
                                  END};
const Verb verb_table[] = {
    {"train", "CONFIG [key=value ...]", "run a config", 0, 1, verb_train, o_train, true},
    {"finetune", "CONFIG [key=value ...]", "the same", 0, 1, verb_train, o_train, true},
    {"distill", "CONFIG [key=value ...]", "the same", 0, 1, verb_train, o_train, true},
    {"teacher-cache", "CONFIG [key=value ...]",
     "the teacher's distributions over data.train into teacher.cache", 1, 1, verb_teacher_cache, o_cache,
     true},
    {"validate", "CONFIG [key=value ...]", "check a config, all errors at once, and estimate memory", 1, 1,
     verb_validate, o_set, false},
    {"config", "show CONFIG | schema", "resolved values with their origin; every key with its help", 1, 2,
     verb_config, o_set, false},
    {"eval", "CONFIG|MODEL", "perplexity; KL and agreement against a teacher", 1, 1, verb_eval, o_eval,
     false},
    {"generate", "MODEL", "continue a prompt", 1, 1, verb_generate, o_generate, false},
    {"probe", "MODEL", "one batch: logits, losses, gradients, activations", 1, 1, verb_probe, o_probe, false},
    {"compare", "A B", "tensor-wise difference of two files of any format", 2, 2, verb_compare, o_json,
     false},
    {"inspect", "FILE", "what a file holds", 1, 1, verb_inspect, o_inspect, false},
    {"export", "IN OUT", "write a model in another format", 2, 2, verb_export, o_export, false},
    {"import", "IN OUT", "the same, into HDF5 by default suffix", 2, 2, verb_export, o_export, false},
    {"quantize", "IN OUT", "weights as codes and scales: int8 to int2, FP8, FP4, NF4", 2, 2, verb_quantize,
     o_quantize, false},
    {"merge", "BASE ADAPTER... OUT", "adapters into weights; a quantised base stays quantised", 3, 64,
     verb_merge, o_merge, false},
    {"unmerge", "MODEL ADAPTER OUT", "the base back, where its content hash proves it", 3, 3, verb_unmerge,
     o_unmerge, false},
    {"extract-lora", "BASE TUNED OUT", "a full fine-tune as an adapter, by SVD", 3, 3, verb_extract_lora,
     o_extract, false},
    {"prune", "IN OUT", "one-shot masks: magnitude, random, SNIP, Taylor, Wanda, SparseGPT", 2, 2, verb_prune,
     o_prune, false},
    {"delta", "make BASE TUNED OUT | apply BASE DELTA OUT | revert TUNED DELTA OUT | verify DELTA [BASE]",
     "what training changed, onto its base and off again", 2, 4, verb_delta, o_none, false},
    {"data", "WHAT [CONFIG|FILES]", "encode, decode, tokenize, pack, stats, inspect, train-tokenizer", 1, 200,
     verb_data, o_data, true},
    {"report", "RUN...", "one HTML page about runs: curves, arms, sizes and qualities, samples", 1, 200,
     verb_report, o_report, false},
    {"doctor", "", "CPU, threads, libraries, a self-test", 0, 0, verb_doctor, o_json, false},
};
const int n_verb_table = (int)(sizeof verb_table / sizeof *verb_table);
