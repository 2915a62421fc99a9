// SPDX-License-Identifier: MIT
// What params.c and params_init.c share.
#pragma once

#include "engine/train/params.h"

// The parameters of a configuration with their blocks, all zero.
struct params *params_build(const struct model_config *c, const struct params_options *o, struct err *err) MUST_CHECK;
