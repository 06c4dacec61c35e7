/* tests/config_good_impl.h: documents that must be accepted. */
#define INIT "hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 128"
#define FRESH "version: 1\ndata: {train: [{path: t.txt}], seq_len: 64}\n"

static const char *const good[] = {
    DOC,
    "version: 1\nmodel:\n  path: m\ndata:\n  train:\n    - path: t.txt\n",
    "{\"version\": 1, \"model\": {\"path\": \"m\"}, \"data\": {\"train\": [{\"path\": \"t\"}]}}",
    "---\n" DOC "...\n",
    "# comment with a\ttab\n" DOC,
    "\xef\xbb\xbf" DOC,
    "%YAML 1.1\n---\n" DOC,
    DOC "run: {recipe: pretrain}\n",
    DOC "run: {recipe: finetune, name: n, output_dir: o, seed: 0}\n",
    DOC "run: {recipe: distill}\nteacher: {path: t}\n",
    DOC "run: {seed: 9223372036854775807}\n",
    DOC "run: {deterministic: yes, overwrite: on, resume: never}\n",
    DOC "run: {resume_from_checkpoint: auto, time_limit: 90m}\n",
    DOC "run: {time_limit: 1h30m}\n",
    DOC "run: {name: \"null\"}\n",
    DOC "run: {name: null, recipe: ~, seed: }\n",
    DOC "run:\n",
    DOC "device: {backend: cpu, threads: 4, blas: builtin, precision: float64}\n",
    DOC "device: {index: 0, tf32: true, allocator_mb: 0, huge_pages: false}\n",
    "version: 1\nmodel: {path: m, dtype: float32, attention: flash, activation_checkpointing: block, "
    "dropout: 0,\n"
    "  freeze: [model.layers.0.*, off, no, 12]}\ndata: {train: [{path: t}]}\n",
    FRESH "model: {init: {arch: llama, " INIT "}}\n",
    FRESH "model: {init: {arch: gpt2, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4}}\n",
    FRESH "model: {init: {arch: qwen3, head_dim: 32, " INIT "}}\n",
    FRESH "model: {init: {arch: mistral, num_key_value_heads: 2, rope_theta: 1e6, " INIT "}}\n",
    FRESH "model: {init: {residual_init_scale: auto, tie_word_embeddings: true, " INIT "}}\n",
    FRESH "model: {init: {residual_init_scale: 0.5, rms_norm_eps: 1e-6, initializer_range: .02, " INIT "}}\n",
    FRESH "model: {init_from_teacher: null, init: {vocab_size: 32k, " INIT "}}\n",
    DOC "teacher: {path: t, dtype: float32, device: same, quantize: none, cache: null}\n",
    DOC "teacher: {path: t, dtype: bfloat16, quantize: int8}\n",
    DOC "teachers: [{path: t, dtype: bfloat16}, {path: u, quantize: nf4}, {path: v, quantize: fp8}]\n",
    DOC "tokenizer: {path: k, add_bos: true, must_match_teacher: false}\n",
    DOC "tokenizer: {path: bytes, add_bos: auto}\n",
    "version: 1\nmodel: {path: m}\ndata: {train: [{path: a, format: bin_llmc, weight: 2}, {path: b, format: "
    "text,\n"
    "  split: \"train[:95%]\"}], val: [{path: c, format: bin_nanogpt}], seq_len: 1_024}\n",
    "version: 1\nmodel: {path: m}\ndata: {train: [{path: a}], cutoff_len: 64, packing: concat, shuffle: "
    "false,\n"
    "  max_samples: 2M, eot: append, document_separator: \"<|endoftext|>\", window_bos: true, workers: 0,\n"
    "  on_bad_line: skip, vocab_check: clip}\n",
    "version: 1\nmodel: {path: m}\ndata: {train: [{path: a}], block_size: 64Ki}\n",
    DOC "train: {epochs: 0.5, max_steps: 1e4, batch_size: 4, gradient_accumulation_steps: 2}\n",
    DOC "train: {num_train_epochs: 2, max_iters: 10, micro_batch_size: 3, grad_accum: 4, max_grad_norm: 0}\n",
    DOC "train: {tokens_per_step: 16384, batch_size: 8}\n",
    DOC "train: {tokens_per_step: 16Ki, grad_accum: 2}\n",
    DOC "train: {label_smoothing: 0.1, z_loss: 1e-4, loss_scale: none, skip_nonfinite: 0, spike_zscore: 0}\n",
    DOC "train: {early_stopping: {metric: val_loss, patience: 0, min_delta: 0.01}}\n",
    DOC "optim: {name: sgd, lr: 3e-4, momentum: 0.9}\n",
    DOC "optim: {name: adam, learning_rate: 0, betas: [0.9, 0.999], eps: 1E-8, weight_decay: 0.}\n",
    DOC "optim: {groups: [{match: [a.*, b], lr: 1e-5}, {match: [c], lr_scale: 0.1, weight_decay: 0}]}\n",
    DOC "optim: {decay_norm_bias: True, master_weights: ON, state_dtype: float32, groups: []}\n",
    DOC "optim: {lr: \"3e-4\"}\n",
    DOC "schedule: {name: constant}\n",
    DOC "schedule: {name: linear, warmup_steps: 10}\ntrain: {max_steps: 11}\n",
    DOC "schedule: {name: wsd, warmup_ratio: 0.1, decay_ratio: 0.9}\n",
    DOC "schedule: {name: polynomial, power: 2, min_lr_ratio: 0}\n",
    DOC "schedule: {name: inverse_sqrt, cycles: 3}\n",
    DOC "distill: {kd_temperature: 4, kd_ratio: 0.9, scale_t2: no, chunk_tokens: 64, top_k: 0}\n",
    DOC "distill: {alpha: 2, kd_ce_alpha: 0, top_k_mode: rest_bucket, balance: static}\n",
    DOC
    "distill: {features: [{student: layers.1.out, teacher: layers.3.out, loss: cosine, projector: auto}]}\n",
    DOC "distill: {layer_map: uniform, features: [{student: \"layers.{s}.q\", teacher: \"layers.{t}.q\"}]}\n",
    DOC "distill: {layer_map: [[0, 1], [1, 3]], projector_learning_rate: 1e-3}\n",
    DOC "lora: {enabled: false}\nprune: {enabled: false}\nqat: {enabled: off}\nquantize: {}\nstages: null\n",
    DOC "lora: {r: null, alpha: ~}\nteachers:\n",
    DOC "seeds: [42, 43, 44]\narms:\n  a: {optim: {lr: 1e-3}}\n  b: {run: {recipe: pretrain}}\n  c:\n",
    DOC "eval: {every_steps: 100, at_start: false, batch_size: 4, max_batches: 10, compare_teacher: true}\n",
    DOC "eval: {eval_steps: 5, perplexity: {protocol: concat-2048}}\n",
    DOC "eval: {perplexity: {enabled: true, protocol: stride, window: 1024, stride: 512}}\n",
    DOC
    "eval: {perplexity: {protocol: llamacpp}, generate: {prompts: [\"Once: upon\", 'a ''b'''], top_p: 1}}\n",
    DOC "checkpoint: {save_steps: 0, every_minutes: 0.5, keep_last: 1, keep_best: {mode: max, n: 2}, async: "
        "false}\n",
    DOC "checkpoint: {compression: none, gzip_level: 1, max_file_gb: 0, verify_on_load: true}\n",
    DOC "log: {level: debug, logging_steps: 1, console: plain, csv: false, tensorboard: no}\n",
    DOC
    "export: [{format: hf, path: out, dtype: bfloat16}, {format: llama2c, path: m.bin, merge_lora: true}]\n",
    DOC "dist: {enabled: auto, world_size: 0, backend: none, strategy: ddp, bucket_mb: 25}\n",
    DOC "run: {name: &n abc, output_dir: *n}\n",
    DOC "run: {name: a, output_dir: \"out/${run.name}/${optim.lr}\"}\noptim: {lr: 1e-3}\n",
    DOC "run: {name: \"${env:PARE_NOT_THERE,x}\", seed: \"${env:PARE_NOT_THERE,7}\"}\n",
    DOC "run: {name: \"$${literal}\"}\n",
    DOC "eval: {batch_size: \"${train.batch_size}\"}\n",
    "version: 1\nmodel: {path: m, freeze: [a]}\ndata: {train: [{path: t}]}\n"
    "optim: {groups: [{match: \"${model.freeze}\"}]}\n",
};
