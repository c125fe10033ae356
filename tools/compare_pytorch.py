#!/usr/bin/env python3
"""A training step of one dense model, Cohort's against PyTorch's eager bf16 on the CPU, runs alternating.

usage: tools/compare_pytorch.py [--rounds N] [--steps N] [--batch N] [--threads N] [--cohort PATH] [--json FILE]

Needs PyTorch (Debian: apt-get install python3-torch). Both train the Llama-shaped model of `cohort bench train-step`
on random tokens: forward, backward, AdamW, with f32 master weights on Cohort's side. PyTorch gets the better of two
ways: bf16 autocast over f32 weights, and weights kept in bf16 outright (less memory traffic, no masters). Prints the
tokens/s of each round and the ratio of medians.
"""
import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time

try:
    import torch
    from torch import nn
    import torch.nn.functional as F
except ImportError:
    sys.exit("compare_pytorch: PyTorch is not installed (Debian: apt-get install python3-torch)")


class RmsNorm(nn.Module):
    def __init__(self, width, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return y.to(x.dtype) * self.weight.to(x.dtype)


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos + turned * sin


class Attention(nn.Module):
    def __init__(self, m):
        super().__init__()
        self.heads, self.kv_heads = m["num_attention_heads"], m["num_key_value_heads"]
        self.head_dim = m["head_dim"]
        width = m["hidden_size"]
        self.q_proj = nn.Linear(width, self.heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(width, self.kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(width, self.kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_dim, width, bias=False)

    def forward(self, x, cos, sin, mask):
        batch, length, _ = x.shape
        q = self.q_proj(x).view(batch, length, self.heads, self.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        repeat = self.heads // self.kv_heads
        if repeat > 1:
            k, v = k.repeat_interleave(repeat, dim=1), v.repeat_interleave(repeat, dim=1)
        if hasattr(F, "scaled_dot_product_attention"):
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = q @ k.transpose(-1, -2) * self.head_dim ** -0.5 + mask
            y = F.softmax(scores, dim=-1) @ v
        return self.o_proj(y.transpose(1, 2).reshape(batch, length, -1))


class Block(nn.Module):
    def __init__(self, m):
        super().__init__()
        width, inner = m["hidden_size"], m["intermediate_size"]
        self.input_norm, self.post_norm = RmsNorm(width), RmsNorm(width)
        self.attention = Attention(m)
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x, cos, sin, mask):
        x = x + self.attention(self.input_norm(x), cos, sin, mask)
        y = self.post_norm(x)
        return x + self.down_proj(F.silu(self.gate_proj(y)) * self.up_proj(y))


class Llama(nn.Module):
    def __init__(self, m, length):
        super().__init__()
        self.embed = nn.Embedding(m["vocab_size"], m["hidden_size"])
        self.blocks = nn.ModuleList(Block(m) for _ in range(m["num_hidden_layers"]))
        self.norm = RmsNorm(m["hidden_size"])
        self.head = nn.Linear(m["hidden_size"], m["vocab_size"], bias=False)
        frequency = 1e4 ** (-torch.arange(0, m["head_dim"], 2).float() / m["head_dim"])
        angle = torch.outer(torch.arange(length).float(), frequency)
        self.cos, self.sin = (torch.cat((f(angle), f(angle)), dim=-1) for f in (torch.cos, torch.sin))
        self.mask = torch.full((length, length), float("-inf")).triu(1)

    def forward(self, tokens, dtype):
        x = self.embed(tokens)
        if x.dtype != dtype:
            x = x.to(dtype)
        cos, sin, mask = self.cos.to(dtype), self.sin.to(dtype), self.mask.to(dtype)
        for block in self.blocks:
            x = block(x, cos, sin, mask)
        return self.head(self.norm(x))


def torch_tokens_per_second(m, length, batch, steps, way):
    torch.manual_seed(1)
    model = Llama(m, length)
    if way == "bf16 weights":
        model = model.to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
    tokens = torch.randint(0, m["vocab_size"], (batch, length + 1))
    times = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
            logits = model(tokens[:, :-1], torch.bfloat16)
        loss = F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
    return batch * length / statistics.median(times[1:])


def cohort_row(binary, threads, steps, batch):
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        run = subprocess.run([binary, "bench", "train-step", "--threads", str(threads), "--steps", str(steps), "--batch",
                              str(batch), "--micro-batch", str(batch), "--json", file.name], capture_output=True, text=True)
        if run.returncode != 0:
            sys.exit(f"compare_pytorch: {binary} bench train-step failed:\n{run.stderr}")
        return json.loads(open(file.name).read().splitlines()[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="timed steps a round")
    parser.add_argument("--batch", type=int, default=8, help="sequences of 512 tokens a step")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cohort", default="build/release/tools/cohort")
    parser.add_argument("--json", help="write one object with the medians")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    ours, theirs = [], {"autocast": [], "bf16 weights": []}
    for number in range(1, arguments.rounds + 1):
        row = cohort_row(arguments.cohort, arguments.threads, arguments.steps, arguments.batch)
        ours.append(row["tokens_per_s"])
        for way, rates in theirs.items():
            rates.append(torch_tokens_per_second(row["model"], row["sequence_length"], row["batch"], arguments.steps, way))
        print(f"round {number}: cohort {ours[-1]:.0f} tokens/s, " +
              ", ".join(f"PyTorch ({way}) {rates[-1]:.0f}" for way, rates in theirs.items()), flush=True)
    best = max(theirs, key=lambda way: statistics.median(theirs[way]))
    result = {"cohort_tokens_per_s": statistics.median(ours), "pytorch_tokens_per_s": statistics.median(theirs[best]),
              "pytorch": f"{torch.__version__}, {best}"}
    result["ratio"] = result["cohort_tokens_per_s"] / result["pytorch_tokens_per_s"]
    print(f"median: cohort {result['cohort_tokens_per_s']:.0f}, PyTorch {result['pytorch']} "
          f"{result['pytorch_tokens_per_s']:.0f} tokens/s, ratio {result['ratio']:.2f}")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(result, file)
            file.write("\n")


if __name__ == "__main__":
    main()
