// SPDX-License-Identifier: MIT
// The loss curve of a training log as an SVG: train and validation loss against epochs (below) and tokens seen (above). Pure; any thread.
#pragma once

#include "base/buf.h"

// `log`: JSON lines as train_log.h writes them; lines that are not whole are passed over. False + ERR_INVALID where it has no losses.
bool plot_losses(const char *log, size_t len, struct buf *svg, struct err *err) MUST_CHECK;
// From a file to a file.
bool plot_write(const char *log_path, const char *svg_path, struct err *err) MUST_CHECK;
