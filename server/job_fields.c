// SPDX-License-Identifier: MIT
// The tables of a fine-tuning job's request: OpenAI's members, and under "couplet" what those have no words for. What goes with what is
// job_request.c's. Thread: any.
#include "server/job_fields.h"

#include "base/mem.h"

// clang-format off
#define ROW(...) FIELD_ROW(struct job_fields, __VA_ARGS__)
#define TABLE(name, rows) {name, rows, ARRAY_LEN(rows), NULL}
static const struct field hyperparameter_fields[] = {
    ROW(n_epochs, FIELD_INTEGER, .min = 1, .max = 50, .automatic = true,
        .doc = "How often it goes through the data (3). More learns it better, until it only repeats it: the validation loss then rises."),
    ROW(batch_size, FIELD_INTEGER, .min = 1, .max = 256, .automatic = true, .doc = "Rows that an update is made from (8)."),
    ROW(learning_rate_multiplier, FIELD_NUMBER, .min = 1e-6, .max = 1e6, .automatic = true,
        .doc = "Scales the automatic learning rate, 2e-4 (lora) or 5e-5 (full); counts for nothing where one is given (1)."),
};
static const struct field_table hyperparameter_table = TABLE("Hyperparameters", hyperparameter_fields);
static const struct field supervised_fields[] = {
    {.name = "hyperparameters", .kind = FIELD_OBJECT, .object = &hyperparameter_table, .doc = "Every one may be \"auto\"."},
};
static const struct field_table supervised_table = TABLE("Supervised", supervised_fields);
static const struct field method_fields[] = {
    {.name = "type", .kind = FIELD_STRING, .offset = offsetof(struct job_fields, method_type), .choices = "supervised",
        .doc = "How is trained."},
    {.name = "supervised", .kind = FIELD_OBJECT, .object = &supervised_table, .doc = "Of the method."},
    {.name = "dpo", .kind = FIELD_REFUSED, .doc = "Training is supervised here."},
    {.name = "reinforcement", .kind = FIELD_REFUSED, .doc = "Training is supervised here."},
};
static const struct field_table method_table = TABLE("Method", method_fields);
static const struct field training_type_fields[] = {
    ROW(type, FIELD_STRING, .choices = "lora|full", .doc = "Low-rank adapters (default), or every weight."),
    ROW(lora_r, FIELD_INTEGER, .min = 1, .max = 4096, .automatic = true,
        .doc = "Rank, the width of an adapter: more can learn more, and takes more (8; of an adapter that is trained on: its own)."),
    ROW(lora_alpha, FIELD_NUMBER, .min = 1e-6, .max = 1e6, .automatic = true, .doc = "The adapter counts alpha / rank times (16)."),
    ROW(lora_dropout, FIELD_NUMBER, .min = 0, .max = 0.99, .automatic = true, .doc = "Dropout before the factors (0)."),
    ROW(lora_trainable_modules, FIELD_STRINGS, .min = 1, .max = 128, .max_items = 32, .automatic = true,
        .doc = "Layers that get an adapter, by the checkpoint's names: q_proj, v_proj, ... (\"all-linear\")."),
};
static const struct field_table training_type_table = TABLE("TrainingType", training_type_fields);
static const struct field architecture_fields[] = {
    ROW(preset, FIELD_STRING, .choices = "gpt2-nano|gpt2-mini|gpt2-124m|gpt2-355m|gpt2-774m|gpt2-1558m",
        .doc = "A named size, or the four numbers."),
    ROW(n_layer, FIELD_INTEGER, .min = 1, .max = 256, .doc = "Blocks, one behind the other."),
    ROW(n_head, FIELD_INTEGER, .min = 1, .max = 256, .doc = "Attention heads in each block."),
    ROW(n_embd, FIELD_INTEGER, .min = 1, .max = 16384, .doc = "Width: numbers that a token is, a multiple of n_head."),
    ROW(n_ctx, FIELD_INTEGER, .min = 1, .max = 65536, .doc = "Longest context: tokens that it can see at once."),
};
static const struct field_table architecture_table = TABLE("Architecture", architecture_fields);
static const struct field couplet_fields[] = {
    {.name = "training_type", .kind = FIELD_OBJECT, .object = &training_type_table, .doc = "What is trained."},
    ROW(learning_rate, FIELD_NUMBER, .min = 0, .max = 1000, .automatic = true,
        .doc = "How far each update moves the weights; with it the multiplier is not used. Too high: the loss jumps; too low: little is learned."),
    ROW(lr_scheduler, FIELD_STRING, .choices = "constant|linear|cosine", .automatic = true,
        .doc = "Course of the learning rate over the run: level, or down to nothing as a line or a cosine (linear)."),
    ROW(warmup_ratio, FIELD_NUMBER, .min = 0, .max = 1, .default_text = "0", .automatic = true,
        .doc = "Share of the run in which the learning rate rises from nothing."),
    ROW(weight_decay, FIELD_NUMBER, .min = 0, .max = 1000, .default_text = "0", .automatic = true,
        .doc = "Draws parameters with two dimensions towards zero."),
    ROW(max_grad_norm, FIELD_NUMBER, .min = 0, .max = 1e9, .default_text = "1", .automatic = true,
        .doc = "A longer gradient is cut to it; 0: none is."),
    ROW(context_length, FIELD_INTEGER, .min = 1, .max = 1 << 24, .automatic = true,
        .doc = "Tokens that the model sees at once while it trains: shorter takes less time and memory (the model's context; texts: at most 1024)."),
    ROW(stride, FIELD_INTEGER, .min = 1, .max = 1 << 24, .automatic = true,
        .doc = "Texts: tokens from one window to the next; less than context_length: windows overlap, and there are more (context_length)."),
    ROW(packing, FIELD_BOOLEAN, .default_text = "false", .doc = "Rows: several short examples in one, each seeing itself alone."),
    ROW(train_on_inputs, FIELD_BOOLEAN, .default_text = "false", .doc = "Rows: learn the prompts too, not only the answers."),
    ROW(excess_length, FIELD_STRING, .choices = "error|truncate|drop",
        .doc = "Rows over context_length: are an error, are cut (truncate) or left out (drop) (error)."),
    ROW(dropout, FIELD_NUMBER, .min = 0, .max = 0.99, .default_text = "0", .automatic = true,
        .doc = "Share of embeddings, attention and residuals left out at random, against learning by heart."),
    ROW(max_steps, FIELD_INTEGER, .min = 1, .max = 1e9, .automatic = true, .doc = "Updates in all, in place of n_epochs."),
    ROW(n_evals, FIELD_INTEGER, .min = 1, .max = 1000, .automatic = true,
        .doc = "Evaluations, spread over the run: points of the validation curve, each with the sample prompts (n_epochs)."),
    ROW(n_checkpoints, FIELD_INTEGER, .min = 1, .max = 1000, .automatic = true,
        .doc = "Checkpoints, spread over the run, that stay and are served; each takes room on the disk (n_evals)."),
    ROW(validation_split, FIELD_NUMBER, .min = 1e-6, .max = 0.999999,
        .doc = "Share of the training file that is not learned but asked: only it shows whether the model became better."),
    ROW(sample_prompts, FIELD_STRINGS, .min = 1, .max = 4096, .max_items = 16,
        .doc = "The model goes on with each of them at every evaluation, as events, so that one sees it learn."),
    ROW(early_stopping, FIELD_INTEGER, .min = 1, .max = 1e6,
        .doc = "Evaluations without a lower validation loss that end the job (never)."),
    ROW(from_checkpoint, FIELD_STRING, .min = 1, .max = 1024, .doc = "Id of a checkpoint's model, of the same base, to go on from."),
    {.name = "architecture", .kind = FIELD_OBJECT, .object = &architecture_table,
     .doc = "With model \"new\": its size; without one and with tokenizer \"train\" the job makes a tokenizer alone."},
    ROW(tokenizer, FIELD_STRING, .min = 1, .max = 1024,
        .doc = "With model \"new\": a model's id, or \"train\": made from the training file."),
    ROW(vocab_size, FIELD_INTEGER, .min = 257, .max = 1 << 20, .automatic = true,
        .doc = "With tokenizer \"train\": tokens that it learns, of which 256 are bytes (1024)."),
    ROW(shared, FIELD_BOOLEAN, .default_text = "false", .doc = "Other keys may see the job and use its models."),
};
const struct field_table couplet_table = TABLE("Couplet", couplet_fields);
static const struct field job_fields[] = {
    ROW(model, FIELD_STRING, .min = 1, .max = 1024, .required = true, .doc = "A served or fine-tuned model's id, or \"new\"."),
    ROW(training_file, FIELD_STRING, .min = 1, .max = 256, .required = true, .doc = "Id of a file with purpose fine-tune."),
    ROW(validation_file, FIELD_STRING, .min = 1, .max = 256, .doc = "Id of a file with held-out data, in place of validation_split."),
    ROW(suffix, FIELD_STRING, .min = 1, .max = 64, .doc = "Part of the result's name: letters, digits, - _ and dots."),
    ROW(seed, FIELD_INTEGER, .min = 0, .max = 2147483647,
        .doc = "Drawn where absent. The same data, settings and seed give the same weights, bit for bit."),
    {.name = "hyperparameters", .kind = FIELD_OBJECT, .object = &hyperparameter_table, .doc = "Deprecated in favour of method."},
    {.name = "method", .kind = FIELD_OBJECT, .object = &method_table, .doc = "Supervised training, and its hyperparameters."},
    ROW(metadata, FIELD_VALUE, .schema = "{\"type\":\"object\",\"maxProperties\":16,\"additionalProperties\":{\"type\":\"string\",\"maxLength\":512}}",
        .doc = "Kept with the job; lists can be filtered by it."),
    ROW(integrations, FIELD_VALUE, .schema = "{\"type\":\"array\",\"maxItems\":0}", .doc = "None are supported."),
    {.name = "couplet", .kind = FIELD_OBJECT, .object = &couplet_table, .doc = "What OpenAI's request has no words for."},
};
// clang-format on
const struct field_table job_table = TABLE("FineTuningJobRequest", job_fields);
