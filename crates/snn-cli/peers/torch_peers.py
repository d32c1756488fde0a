#!/usr/bin/env python3
"""Times what a user would run today instead of this project, on the same machine and in the same run.

Plain PyTorch versions of the published algorithms, written from the publications
(they do the operations the publications describe: convolutions for the block model, FFTs for SPSN,
a Python loop over time for the sequential models), plus optional LIF layers of public SNN libraries.

Protocol (the published one): one affine layer n_in -> n and one neuron model, input = synthetic spikes,
forward (device synchronised) and backward of sum(output) timed separately, first batch dropped,
then `--repeats` timings. One JSON object per line on stdout:

  {"peer": ..., "device": ..., "batch": B, "steps": T, "n_in": .., "n": .., "forward_s": median,
   "backward_s": median, "forward_all": [...], "backward_all": [...], "peak_bytes": .. or null,
   "torch": version, "threads": ..}

Networks of rectified linear units (fc2, fc2-fused-adam, vgg16) are timed as whole training steps instead: forward_s is
the forward pass with the loss, backward_s the backward pass with the optimiser's step; of several ways to run them the
fastest is reported, and "variant" says which it was. --steps, --n-in and --n mean nothing to them.

The adaptive neuron with a refractory period comes in three forms of equal spikes: `alif`, a loop over time fed by one
unbind; `alif-published`, the loop that writes the recurrent drive into an array of all steps, as published, which makes
its backward pass quadratic in T; `alif-block`, one refractory period at a time.

A peer whose library is not installed prints {"peer": ..., "missing": library}; "first_forward_s" is the forward pass of
the batch that is dropped.

Examples
  torch_peers.py --peer block,single,multi --batch 64 --steps 128 --n 100,1000
  torch_peers.py --peer alif,alif-published,alif-block --steps 1024 --refractory 40 --n 128 --layers 2
  torch_peers.py --peer norse,spikingjelly,snntorch --forward-only --n-in 200 --n 100 --steps 1000
  torch_peers.py --peer spsn-sb,lif --n-in 700 --n 128 --steps 250 --density 0.02
  torch_peers.py --peer fc2,fc2-fused-adam,vgg16 --batch 8 --density 0.2 --repeats 30
  torch_peers.py --device cuda --peer block,single,snntorch,spikingjelly --n 1000
  torch_peers.py --list
"""
import argparse
import json
import math
import sys
import time

import torch
import torch.nn.functional as F


class FastSigmoid(torch.autograd.Function):
    """Heaviside(v) forward, 1 / (k|v| + 1)^2 backward."""

    @staticmethod
    def forward(ctx, v, k):
        ctx.save_for_backward(v)
        ctx.k = k
        return (v > 0).to(v.dtype)

    @staticmethod
    def backward(ctx, grad):
        (v,) = ctx.saved_tensors
        return grad / (ctx.k * v.abs() + 1.0) ** 2, None


def spike(v, k=10.0):
    return FastSigmoid.apply(v, k)


class MultiGaussian(torch.autograd.Function):
    """Heaviside(v) forward; backward half of a Gaussian at 0 less two wide ones at its sides."""

    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return (v > 0).to(v.dtype)

    @staticmethod
    def backward(ctx, grad):
        (v,) = ctx.saved_tensors

        def bell(mean, width):
            return torch.exp(-(v - mean) ** 2 / (2 * width ** 2)) / (math.sqrt(2 * math.pi) * width)

        return grad * 0.5 * (1.15 * bell(0.0, 0.5) - 0.15 * bell(0.5, 3.0) - 0.15 * bell(-0.5, 3.0))


SLICED = False


def over_time(current):
    """The steps of [B, n, T]. Slicing inside the loop, as the originals do, makes the backward pass
    quadratic in T (each slice's gradient is a full-size zero tensor); unbinding once is the fair version."""
    if SLICED:
        return (current[:, :, t] for t in range(current.shape[2]))
    return current.unbind(2)


class PassAll(torch.autograd.Function):
    """g(z) = [z == 1], identity gradient (the block model's correction step)."""

    @staticmethod
    def forward(ctx, z):
        return (z == 1).to(z.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad


def decay_kernel(beta, steps):
    """beta: [n] -> [n, steps], newest step last."""
    exponent = torch.arange(steps - 1, -1, -1, device=beta.device, dtype=beta.dtype)
    return beta.unsqueeze(1) ** exponent


def block_core(current, kernel, phi, threshold, fire=spike):
    """current [B, n, T]; kernel [n, T]; phi [T] -> (spikes, z, membrane), all [B, n, T]."""
    batch, n, steps = current.shape
    membrane = F.conv1d(F.pad(current, (steps - 1, 0)), kernel.unsqueeze(1), groups=n)
    fires = fire(membrane - threshold)
    z = F.conv2d(F.pad(fires, (steps - 1, 0)).unsqueeze(1), phi.view(1, 1, 1, steps)).squeeze(1)
    return PassAll.apply(z), z, membrane


class Layer(torch.nn.Module):
    """Affine map over every step, then `neuron`; input [B, n_in, T], output [B, n, T]."""

    def __init__(self, n_in, n):
        super().__init__()
        bound = 1.0 / math.sqrt(n_in)
        self.weight = torch.nn.Parameter(torch.empty(n, n_in).uniform_(-bound, bound))
        self.bias = torch.nn.Parameter(torch.zeros(n))
        self.beta = torch.nn.Parameter(torch.full((n,), 0.9))

    def affine(self, x):
        return F.linear(x.transpose(1, 2), self.weight, self.bias).transpose(1, 2)

    def forward(self, x):
        return self.neuron(self.affine(x))


class Block(Layer):
    def __init__(self, n_in, n, steps, **_):
        super().__init__(n_in, n)
        self.register_buffer("phi", torch.arange(steps, 0, -1).float())

    def neuron(self, current):
        beta = self.beta.clamp(0, 1)
        return block_core(current, decay_kernel(beta, current.shape[2]), self.phi, 1.0)[0]


class Single(Layer):
    def __init__(self, n_in, n, **_):
        super().__init__(n_in, n)

    def neuron(self, current):
        beta = self.beta.clamp(0, 1)
        v = torch.zeros_like(current[:, :, 0])
        spent = torch.zeros_like(v)
        out = []
        for drive in over_time(current):
            v = beta * v + drive
            s = spike(v - 1) * (1 - spent)
            v = v * (1 - spent)
            spent = torch.maximum(spent, s)
            out.append(s)
        return torch.stack(out, 2)


class Multi(Layer):
    def __init__(self, n_in, n, **_):
        super().__init__(n_in, n)

    def neuron(self, current):
        beta = self.beta.clamp(0, 1)
        v = torch.zeros_like(current[:, :, 0])
        out = []
        for drive in over_time(current):
            v = beta * v + drive
            s = spike(v - 1)
            v = v - s
            out.append(s)
        return torch.stack(out, 2)


class Adaptive(Layer):
    """Adaptive LIF with an absolute refractory period, one step after the other. Recurrent connections take one step
    more than that period. Spikes pass gradients to later steps through the threshold alone."""

    def __init__(self, n_in, n, refractory, recurrent=True, **_):
        super().__init__(n_in, n)
        self.recurrent = torch.nn.Parameter(torch.eye(n)) if recurrent else None
        self.p = torch.nn.Parameter(torch.full((n,), 0.9))
        self.b = torch.nn.Parameter(torch.full((n,), 1.8))
        self.refractory = refractory

    def constants(self):
        return self.beta.clamp(0.001, 0.999), self.p.abs().clamp(0, 0.999), self.b.abs().clamp(0.001, 1)

    def neuron(self, current):
        beta, p, b = self.constants()
        v = torch.zeros_like(current[:, :, 0])
        a, threshold, rest = v, torch.ones_like(v), v
        out = []
        for t, drive in enumerate(over_time(current)):
            if self.recurrent is not None and t > self.refractory:
                drive = drive + F.linear(out[t - self.refractory - 1].detach(), self.recurrent)
            v = beta * v + drive.masked_fill(rest > 0, 0)
            s = MultiGaussian.apply(v - threshold)
            fired = s.detach()
            v = v * (1 - fired)
            rest = torch.where(fired > 0, self.refractory, rest - 1)
            a = p * a + s
            threshold = 1 + b * a
            out.append(s)
        return torch.stack(out, 2)


class AdaptivePublished(Adaptive):
    """The same, with two defects of the published loop: it adds the recurrent drive to an array of all steps, and there
    it blanks refractory neurons. Each write in place copies that whole array's gradient in the backward pass."""

    def neuron(self, current):
        beta, p, b = self.constants()
        current = current.clone()
        v = torch.zeros_like(current[:, :, 0])
        a, threshold, rest = v, torch.ones_like(v), v
        out = []
        for t in range(current.shape[2]):
            if t > self.refractory:
                past = out[t - self.refractory - 1].detach()
                drive = torch.zeros_like(past) if self.recurrent is None else F.linear(past, self.recurrent)
                current[:, :, t] += drive
            current[:, :, t][rest > 0] = 0
            v = beta * v + current[:, :, t]
            s = MultiGaussian.apply(v - threshold)
            fired = s.detach()
            v = v * (1 - fired)
            rest = torch.where(fired > 0, self.refractory, rest - 1)
            a = p * a + s
            threshold = 1 + b * a
            out.append(s)
        return torch.stack(out, 2)


class AdaptiveBlock(Adaptive):
    """The same spikes, one refractory period and a step at a time: no neuron fires twice in a block. Gradients differ:
    every entry of the selection of the first spike passes them, and none go from the carried threshold to spikes."""

    def __init__(self, n_in, n, refractory, **kw):
        super().__init__(n_in, n, refractory, **kw)
        self.length = refractory + 1
        self.register_buffer("phi", torch.arange(self.length, 0, -1).float())
        self.register_buffer("ahead", torch.arange(1, self.length + 1).float())

    def neuron(self, current):
        beta, p, b = self.constants()
        batch, n, steps = current.shape
        length = self.length
        current = F.pad(current, (0, -steps % length))
        kernel = decay_kernel(beta, length)
        growth = p.unsqueeze(1) ** self.ahead
        a = torch.zeros(batch, n, length, device=current.device)
        threshold = torch.ones_like(a)
        s = z = membrane = None
        out = []
        for drive in current.split(length, 2):
            if s is not None:
                past = s.detach()
                if self.recurrent is not None:
                    drive = drive + torch.einsum("ij,bjt->bit", self.recurrent, past)
                fired = past.amax(2).bool()
                drive = torch.where(z < fired.unsqueeze(2), 0.0, drive)
                start = beta * membrane[:, :, -1] * ~fired
                drive = torch.cat([drive[:, :, :1] + start.unsqueeze(2), drive[:, :, 1:]], 2)
                # One step later the threshold counts the spike: p (a + 1 / p) = p a + 1.
                jump = (a * past).sum(2) + 1 / p
                a = torch.where(fired, p ** (z > 1).sum(2) * jump, a[:, :, -1])
                a = growth * a.unsqueeze(2)
                threshold = 1 + b.unsqueeze(1) * a
            s, z, membrane = block_core(drive, kernel, self.phi, threshold, MultiGaussian.apply)
            out.append(s)
        return torch.cat(out, 2)[:, :, :steps]


class Bernoulli(torch.autograd.Function):
    @staticmethod
    def forward(ctx, prob):
        ctx.save_for_backward(prob)
        return torch.bernoulli(prob)

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0]


class Spsn(Layer):
    """Two leaky filters by FFT of length 2T, or step by step (`loop`), then a firing function: stochastic ('sb', 'gs'),
    a threshold ('t') or a threshold on the rise ('d'). `recurrent`: the spikes of the filtered current drive a second
    pass of the filters, one step late."""

    def __init__(self, n_in, n, steps, mode="sb", tau_mem=20.0, tau_syn=20.0, recurrent=False, loop=False, **_):
        super().__init__(n_in, n)
        self.alpha, self.decay = math.exp(-1 / tau_syn), math.exp(-1 / tau_mem)
        t = torch.arange(steps).float()
        self.register_buffer("response", torch.fft.rfft(self.alpha ** t, n=2 * steps)
                             * torch.fft.rfft((1 - self.decay) * self.decay ** t, n=2 * steps))
        self.mode, self.loop = mode, loop
        self.threshold = torch.nn.Parameter(torch.tensor(0.1 if mode == "d" else 1.0))
        self.back = torch.nn.Linear(n, n) if recurrent else None

    def filtered(self, current):
        if self.loop:
            syn = torch.zeros_like(current[:, :, 0])
            v = torch.zeros_like(syn)
            out = []
            for drive in over_time(current):
                syn = self.alpha * syn + drive
                v = self.decay * v + (1 - self.decay) * syn
                out.append(v)
            return torch.stack(out, 2)
        steps = current.shape[2]
        return torch.fft.irfft(torch.fft.rfft(current, n=2 * steps) * self.response, n=2 * steps)[:, :, :steps]

    def fire(self, v):
        if self.mode == "sb":
            return Bernoulli.apply(torch.sigmoid(v))
        if self.mode == "gs":
            noise = -torch.log(-torch.log(torch.rand(v.shape + (2,), device=v.device)))
            soft = torch.softmax(torch.stack([v + noise[..., 0], -v + noise[..., 1]]), 0)[0]
            return (soft > 0.5).float() - soft.detach() + soft
        rise = v - F.pad(v, (1, 0))[:, :, :-1] if self.mode == "d" else v
        return spike(rise - self.threshold.relu(), 100.0)

    def neuron(self, current):
        v = self.filtered(current)
        if self.back is not None:
            hidden = self.fire(F.pad(v, (1, 0))[:, :, :-1])
            v = v + self.filtered(current + self.back(hidden.transpose(1, 2)).transpose(1, 2))
        return self.fire(v)


class Lif(Layer):
    """Synaptic and membrane filter, reset to zero (detached)."""

    def __init__(self, n_in, n, tau_mem=20.0, tau_syn=20.0, **_):
        super().__init__(n_in, n)
        self.alpha, self.decay = math.exp(-1 / tau_syn), math.exp(-1 / tau_mem)

    def neuron(self, current):
        syn = torch.zeros_like(current[:, :, 0])
        v = torch.zeros_like(syn)
        out = []
        for drive in over_time(current):
            syn = self.alpha * syn + drive
            v = self.decay * v + (1 - self.decay) * syn
            s = spike(v - 1, 100.0)
            v = v * (1 - s.detach())
            out.append(s)
        return torch.stack(out, 2)


class SnnTorchLeaky(Layer):
    def __init__(self, n_in, n, **_):
        super().__init__(n_in, n)
        import snntorch
        self.cell = snntorch.Leaky(beta=0.9, learn_beta=True)

    def neuron(self, current):
        v = self.cell.init_leaky()
        out = []
        for drive in over_time(current):
            s, v = self.cell(drive, v)
            out.append(s)
        return torch.stack(out, 2)


class SpikingJellyLif(Layer):
    """Multi-step mode; the CuPy backend is used on CUDA when it is installed."""

    def __init__(self, n_in, n, device="cpu", **_):
        super().__init__(n_in, n)
        from spikingjelly.activation_based import neuron
        backend = {"backend": "cupy"} if device == "cuda" else {}
        self.cell = neuron.LIFNode(tau=10.0, step_mode="m", **backend)

    def neuron(self, current):
        from spikingjelly.activation_based import functional
        functional.reset_net(self.cell)
        return self.cell(current.permute(2, 0, 1).contiguous()).permute(1, 2, 0)


class NorseLif(Layer):
    """Synaptic and membrane filter with reset; Norse walks over time itself, first axis."""

    def __init__(self, n_in, n, **_):
        super().__init__(n_in, n)
        from norse.torch import LIF
        self.cell = LIF()

    def neuron(self, current):
        return self.cell(current.permute(2, 0, 1).contiguous())[0].permute(1, 2, 0)


PEERS = {
    "block": Block, "single": Single, "multi": Multi,
    "alif": Adaptive, "alif-published": AdaptivePublished, "alif-block": AdaptiveBlock,
    "spsn-sb": Spsn, "spsn-gs": lambda **kw: Spsn(mode="gs", **kw), "lif": Lif,
    "paralif-t": lambda **kw: Spsn(mode="t", **kw), "paralif-d": lambda **kw: Spsn(mode="d", **kw),
    "paralif-t-loop": lambda **kw: Spsn(mode="t", loop=True, **kw),
    "paralif-t-recurrent": lambda **kw: Spsn(mode="t", recurrent=True, **kw),
    "norse": NorseLif, "snntorch": SnnTorchLeaky, "spikingjelly": SpikingJellyLif,
}


class Mlp(torch.nn.Sequential):
    """784-340-10."""

    shape, density = (784,), 0.2

    def __init__(self):
        super().__init__(torch.nn.Linear(784, 340), torch.nn.ReLU(), torch.nn.Linear(340, 10))


class Vgg16(torch.nn.Sequential):
    """Thirteen 3x3 convolutions with bias in five stages, each ended by pooling, for 32x32 images; two dense layers."""

    shape, density = (3, 32, 32), 1.0

    def __init__(self):
        parts, channels = [], 3
        for width, depth in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]:
            for _ in range(depth):
                parts += [torch.nn.Conv2d(channels, width, 3, padding=1), torch.nn.ReLU(inplace=True)]
                channels = width
            parts.append(torch.nn.MaxPool2d(2))
        super().__init__(*parts, torch.nn.Flatten(), torch.nn.Linear(512, 512), torch.nn.ReLU(inplace=True),
                         torch.nn.Linear(512, 10))


def sgd(parameters, **how):
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=5e-4, **how)


# Network, memory format, optimiser: the fastest of each list counts. Adam is timed as it comes and fused.
NETWORKS = {
    "fc2": (Mlp, {"default": (torch.contiguous_format, torch.optim.Adam)}),
    "fc2-fused-adam": (Mlp, {"fused": (torch.contiguous_format, lambda p: torch.optim.Adam(p, fused=True))}),
    "vgg16": (Vgg16, {f"{layout}, {name}": (memory, lambda p, how=how: sgd(p, **how))
                      for layout, memory in [("contiguous", torch.contiguous_format),
                                             ("channels last", torch.channels_last)]
                      for name, how in [("foreach", {"foreach": True}), ("one by one", {"foreach": False}),
                                        ("fused", {"fused": True})]}),
}


def synthetic_spikes(batch, n_in, steps, density, generator):
    """Without a density: rate per sample ~ U(0, 200) expected events per sequence (the published generator)."""
    if density is None:
        rate = torch.rand(batch, 1, 1, generator=generator) * 200 / steps
    else:
        rate = torch.full((batch, 1, 1), density)
    return (torch.poisson(rate.expand(batch, n_in, steps).contiguous(), generator=generator) > 0).float()


def time_one(name, batch, steps, n_in, n, args):
    device = args.device
    sync = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    generator = torch.Generator().manual_seed(args.seed)
    torch.manual_seed(args.seed)
    given = {} if args.tau is None else {"tau_mem": args.tau, "tau_syn": args.tau}
    if args.feed_forward and name.startswith("alif"):
        given["recurrent"] = False
    sizes = [n_in] + [n] * (args.layers - 1)
    try:
        layers = [PEERS[name](n_in=size, n=n, steps=steps, refractory=args.refractory, device=device, **given)
                  for size in sizes]
    except ModuleNotFoundError as error:
        return {"peer": name, "missing": error.name}
    layer = (layers[0] if len(layers) == 1 else torch.nn.Sequential(*layers)).to(device)
    if args.compile:
        layer = torch.compile(layer)
    forward, backward = [], []
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for i in range(args.repeats + 1):
        x = synthetic_spikes(batch, n_in, steps, args.density, generator).to(device)
        sync()
        start = time.perf_counter()
        with torch.set_grad_enabled(not args.forward_only):
            y = layer(x)
        sync()
        middle = time.perf_counter()
        if not args.forward_only:
            y.sum().backward()
            sync()
        end = time.perf_counter()
        if i == 0:
            first = middle - start
        else:
            forward.append(middle - start)
            backward.append(end - middle)
    return {
        "peer": name + ("+sliced" if SLICED else "") + ("+compile" if args.compile else ""), "device": device, "batch": batch, "steps": steps,
        "n_in": n_in, "n": n, "refractory": args.refractory, "layers": args.layers, "forward_s": median(forward),
        "backward_s": median(backward), "forward_all": forward, "backward_all": backward, "first_forward_s": first,
        "peak_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
        "torch": torch.__version__, "threads": torch.get_num_threads(),
        "output_mean": float(y.detach().mean()),
    }


def time_network(name, batch, args):
    kind, variants = NETWORKS[name]
    runs = [time_variant(kind, *variants[variant], variant, batch, args) for variant in variants]
    forward, backward, variant, output = min(runs, key=lambda run: median(run[0]) + median(run[1]))
    return {
        "peer": name + ("+compile" if args.compile else ""), "device": args.device, "batch": batch, "steps": 1,
        "n_in": math.prod(kind.shape), "n": 10, "refractory": args.refractory, "forward_s": median(forward),
        "backward_s": median(backward), "forward_all": forward, "backward_all": backward,
        "peak_bytes": torch.cuda.max_memory_allocated() if args.device == "cuda" else None,
        "torch": torch.__version__, "threads": torch.get_num_threads(), "output_mean": output, "variant": variant,
    }


def time_variant(kind, memory, optimiser, variant, batch, args):
    sync = torch.cuda.synchronize if args.device == "cuda" else (lambda: None)
    generator = torch.Generator().manual_seed(args.seed)
    torch.manual_seed(args.seed)
    network = kind().to(args.device)
    density = kind.density if args.density is None else args.density
    if len(kind.shape) == 3:
        network = network.to(memory_format=memory)
        # Images have no background.
        density = 1.0
    step = optimiser(network.parameters())
    run = torch.compile(network) if args.compile else network
    forward, backward = [], []
    for i in range(args.repeats + 1):
        x = torch.rand((batch, *kind.shape), generator=generator)
        x = (x * (torch.rand(x.shape, generator=generator) < density)).to(args.device)
        if x.dim() == 4:
            x = x.contiguous(memory_format=memory)
        target = torch.randint(10, (batch,), generator=generator).to(args.device)
        sync()
        start = time.perf_counter()
        with torch.set_grad_enabled(not args.forward_only):
            y = run(x)
            loss = F.cross_entropy(y, target)
        sync()
        half = time.perf_counter()
        if not args.forward_only:
            step.zero_grad(set_to_none=True)
            loss.backward()
            step.step()
            sync()
        end = time.perf_counter()
        if i > 0:
            forward.append(half - start)
            backward.append(end - half)
    return forward, backward, variant, float(y.detach().mean())


def median(times):
    return sorted(times)[len(times) // 2]


def numbers(text):
    return [int(v) for v in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default="block,single")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--batch", type=numbers, default=[64])
    parser.add_argument("--steps", type=numbers, default=[128])
    parser.add_argument("--n-in", type=numbers, default=[1000])
    parser.add_argument("--n", type=numbers, default=[100])
    parser.add_argument("--refractory", type=int, default=40)
    parser.add_argument("--layers", type=int, default=1, help="equal layers, one on top of the other")
    parser.add_argument("--feed-forward", action="store_true", help="alif without recurrent connections")
    parser.add_argument("--density", type=float, default=None)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--sliced", action="store_true", help="time loops slice the current, as the originals do")
    parser.add_argument("--tau", type=float, default=None, help="time constants of spsn, paralif and lif, in steps")
    parser.add_argument("--forward-only", action="store_true", help="no backward pass, and nothing kept for one")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    if args.list:
        print("\n".join([*PEERS, *NETWORKS]))
        return
    global SLICED
    SLICED = args.sliced
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True
    for name in args.peer.split(","):
        if name not in PEERS and name not in NETWORKS:
            sys.exit(f"unknown peer {name!r}; one of {', '.join([*PEERS, *NETWORKS])}")
        for batch in args.batch:
            if name in NETWORKS:
                print(json.dumps(time_network(name, batch, args)), flush=True)
                continue
            for steps in args.steps:
                for n_in in args.n_in:
                    for n in args.n:
                        print(json.dumps(time_one(name, batch, steps, n_in, n, args)), flush=True)


if __name__ == "__main__":
    main()
