// SPDX-License-Identifier: MIT
// The seed's worked example: six words of three numbers each, and the weight matrices that its notebook draws. Source: Sangameeee/LLM-from-scratch,
// attention_mechanism.ipynb (cells counted from 0); what torch 2.x draws after torch.manual_seed of the seed that stands beside each. Every matrix
// stands as in x W, [in][out]: those of nn.Linear are turned over.

export const WORDS = ["Your", "journey", "starts", "with", "one", "step"];
export const INPUTS = [[0.43, 0.15, 0.89], [0.55, 0.87, 0.66], [0.57, 0.85, 0.64], [0.22, 0.58, 0.33], [0.77, 0.25, 0.1], [0.05, 0.8, 0.55]];

/** Cell 29: torch.manual_seed(123), then torch.rand(3, 2) three times. */
export const RAND = {
  W_q: [[0.29611194, 0.5165623], [0.25167072, 0.6885568], [0.07397246, 0.86652195]],
  W_k: [[0.13657987, 0.10247904], [0.18405646, 0.72644675], [0.3152539, 0.68710667]],
  W_v: [[0.075635314, 0.19663817], [0.31641197, 0.40174013], [0.1185683, 0.8273954]],
};

/** Cell 45, SelfAttention_v2: torch.manual_seed(789), then three nn.Linear(3, 2). */
export const LINEAR = {
  W_q: [[0.31605908, -0.1682854], [0.45680857, -0.33787704], [0.51183486, -0.09177387]],
  W_k: [[0.40580583, 0.21336074], [-0.47042054, -0.26005065], [0.2368052, -0.510543]],
  W_v: [[0.25256988, 0.5191074], [-0.14147827, -0.08516758], [-0.19618134, -0.20432705]],
};

/** Cell 72, two heads of nn.Linear(3, 2) after torch.manual_seed(123); the first alone is cell 67's CausalAttention. */
export const HEADS = {
  W_q: [[[-0.23542964, 0.21772662], [0.019124476, -0.4919342], [-0.28674594, 0.42322308]],
    [[-0.13615717, 0.107563816], [0.18532233, 0.15787685], [0.4082695, 0.55729234]]],
  W_k: [[[-0.4196414, 0.2614782], [-0.45901766, -0.2133264], [-0.36482018, 0.21605217]],
    [[-0.2603904, 0.41260317], [0.18287641, 0.4611045], [-0.25687245, -0.53230095]]],
  W_v: [[[-0.49001414, -0.11346072], [-0.35029206, -0.44043937], [-0.2119892, 0.37804362]],
    [[0.49285263, 0.23768058], [0.27569306, 0.47995073], [0.25159022, -0.07623307]]],
};

/** Cell 75's way, one matrix divided among the heads: HEADS' first, and what joins the heads after it. */
export const JOIN = {
  W_o: [[-0.16675779, 0.500026], [0.22697258, 0.13173823]],
  b_o: [0.19335887, 0.68254095],
};
