// SPDX-License-Identifier: MIT
// What a training run leaves beside its log: the model or adapter, snapshots of it while the run lasts, the table of losses. Thread: the command's.
#pragma once

#include "server/train_job.h"

// Full, freeze: the whole model, as a Hugging Face directory. LoRA: a PEFT adapter's directory. Files appear in dir one by one, each whole.
bool train_result_write(const struct train_job *j, const char *dir, struct err *err) MUST_CHECK;
// The same at once: PARENT/step-STEP appears whole, in place of one that is there.
bool train_snapshot_write(const struct train_job *j, const char *parent, uint64_t step, struct err *err) MUST_CHECK;
// Every PARENT/step-N but those of the newest two.
void train_snapshots_prune(const char *parent);

// From the log, one row an update, in OpenAI's columns: step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy; the last two are
// empty where nothing was evaluated after that update.
bool train_results_csv(const char *log_path, const char *csv_path, struct err *err) MUST_CHECK;
