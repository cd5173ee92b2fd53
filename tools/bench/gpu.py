"""The native command line on a GPU beside its own CPU device and PyTorch with CUDA: times, and whether the pictures are the same.

    cargo build --release --workspace --features gpu
    python tools/bench/gpu.py --inkbloom FILE --model www/models/sticker --record NAME

The machine at hand may have neither Rust nor the repository: --stage makes a folder of everything that is needed, 30 MB beside the
command line, to be run there by `python FOLDER/gpu.py`. PyTorch, diffusers, transformers and safetensors must be there (or wheels of
them that are pure Python, in FOLDER/wheels); without them, only Inkbloom is measured.
"""

import argparse
import json
import lzma
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]  # of the repository, or a staged folder
PACKED = "inkbloom.xz"
PARTS = ["text", "denoise", "decode", "total", "picture"]
CORE = ("text_encoder", "transformer", "vae")
# What a staged folder has beside model and command line, each where the others look for it.
STAGED = [
    "tools/bench/gpu.py", "tools/bench/eager.py", "tools/reference/networks.py",
    "tools/train/inkbloom_train/__init__.py", "tools/train/inkbloom_train/errors.py", "tools/train/inkbloom_train/pretrained.py",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    staged = ROOT / "model"
    parser.add_argument("--inkbloom", type=Path, help="the command line; a staged folder has its own")
    parser.add_argument("--model", type=Path, default=staged if staged.exists() else ROOT / "www/models/sticker")
    parser.add_argument("--prompt", default="3d emoji of a red apple")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=110, help="the whole may take; what comes too late is left out")
    parser.add_argument("--device", choices=["cuda", "cpu", "none"], default="cuda", help="PyTorch's; none: without PyTorch")
    parser.add_argument("--record", type=Path, help="the folder, or the name's beginning, of the record: .json, .md and pictures")
    parser.add_argument("--stage", type=Path, metavar="FOLDER", help="make the folder and measure nothing")
    args = parser.parse_args()
    if args.stage:
        stage(args)
    else:
        Bench(args).run()


def stage(args: argparse.Namespace) -> None:
    """Everything that is needed, and of the model what a picture by diffusion needs."""
    for name in STAGED:
        (args.stage / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, args.stage / name)
    (args.stage / "gpu.py").write_text("import runpy\nfrom pathlib import Path\nrunpy.run_path(str(Path(__file__).resolve().parent / 'tools/bench/gpu.py'), run_name='__main__')\n")
    stripped = args.stage / "inkbloom"
    shutil.copy(args.inkbloom, stripped)
    quiet(["strip", str(stripped)])
    (args.stage / PACKED).write_bytes(lzma.compress(stripped.read_bytes(), preset=9))
    stripped.unlink()
    manifest = json.loads((args.model / "manifest.json").read_text())
    tensors = [tensor for tensor in manifest["tensors"] if tensor["name"].startswith(tuple(f"{name}/" for name in CORE))]
    used = sorted({part["shard"] for tensor in tensors for part in tensor["parts"]})
    for part in (part for tensor in tensors for part in tensor["parts"]):
        part["shard"] = used.index(part["shard"])
    left_out = [name for name in manifest.get("optional", []) if name in manifest["configs"]]
    for name in left_out:
        del manifest["configs"][name]
        manifest["model_index"].pop(name, None)
    shards = [manifest["shards"][i] for i in used]
    (args.stage / "model").mkdir(exist_ok=True)
    (args.stage / "model/manifest.json").write_text(json.dumps({**manifest, "optional": [], "tensors": tensors, "shards": shards}))
    for shard in shards:
        shutil.copy(args.model / shard["file"], args.stage / "model" / shard["file"])
    size = sum(path.stat().st_size for path in args.stage.rglob("*") if path.is_file())
    print(f"{args.stage}: {size / 2**20:.1f} MiB, without {', '.join(left_out) or 'nothing'}")


class Bench:
    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.began = time.monotonic()
        self.work = Path(tempfile.mkdtemp(prefix="inkbloom-gpu-"))
        self.lines: list[str] = []
        self.record: dict = {}
        for wheel in (ROOT / "wheels").glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(self.work / "site")
        self.command = args.inkbloom and args.inkbloom.resolve()
        if not self.command:
            self.command = self.work / "inkbloom"
            self.command.write_bytes(lzma.decompress((ROOT / PACKED).read_bytes()))
            self.command.chmod(0o755)
        self.env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(self.work / "site"), os.environ.get("PYTHONPATH", "")])}

    def run(self) -> None:
        self.about()
        for step in (self.same_picture, self.ours, self.theirs, self.counts, self.ours_again):
            try:
                step()
            except Exception as error:  # what is known by then is worth keeping
                self.say("", f"`{step.__name__}` failed: {error}")
                self.record.setdefault("failed", {})[step.__name__] = str(error)
            self.write()
        self.compare()
        self.record["seconds"] = round(time.monotonic() - self.began, 1)
        self.say("", f"All of it took {self.record['seconds']} s.")
        self.write()
        shutil.rmtree(self.work, ignore_errors=True)

    # --- running others

    def left(self) -> float:
        return self.args.seconds - (time.monotonic() - self.began)

    def call(self, command: list, cwd: Path | None = None) -> str:
        """Its output; what came of it by the end of the time, where it takes longer."""
        if self.left() < 1:
            raise TimeoutError("no time was left")
        with subprocess.Popen(command, cwd=cwd, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
            try:
                out, err = process.communicate(timeout=self.left())
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # torch.compile has workers, which hold its output open
                out, err = process.communicate()
                self.say("", f"`{' '.join(map(str, command[:3]))} ...` was stopped: no time was left.")
                return out or ""
        if process.returncode:
            raise RuntimeError(f"{' '.join(map(str, command))}: {(err or out).strip()[-800:]}")
        return out

    def inkbloom(self, *words: object, cwd: Path | None = None) -> str:
        return self.call([self.command, *map(str, words)], cwd)

    def bench(self, device: str, rounds: int) -> dict:
        out = self.inkbloom("bench", "--model", self.args.model.resolve(), "--prompt", self.args.prompt, "--device", device, "--rounds", rounds, "--json")
        return json.loads(out)

    # --- steps

    def about(self) -> None:
        gpu = quiet(["nvidia-smi", "--query-gpu=name,driver_version,power.limit", "--format=csv,noheader"])
        cores, load = os.cpu_count(), ", ".join(f"{value:.1f}" for value in os.getloadavg())
        self.record.update(date=time.strftime("%Y-%m-%d"), machine=platform.machine(), cores=cores, load=load, nvidia_smi=gpu, prompt=self.args.prompt)
        self.say(f"## GPU, {self.record['date']}", "", f"{gpu or 'no nvidia-smi'}; {cores} cores, load {load} when it began; 256 x 256, 4 steps, batch 1.")

    def same_picture(self) -> None:
        """The GPU's numbers against the CPU device's, from the same seed."""
        from safetensors.numpy import load_file

        dumps = {}
        for device in ("cpu", "gpu"):
            dump, picture = self.work / f"{device}.safetensors", self.work / f"{device}.png"
            self.inkbloom("generate", "--model", self.args.model.resolve(), "--prompt", self.args.prompt, "--seed", 1, "--device", device, "--dump", dump, "--out", picture)
            dumps[device] = load_file(dump)
            if self.args.record:
                shutil.copy(picture, self.named(f"-{device}.png"))
        self.say("", "### The same numbers?", "", row("", "largest difference", "largest value", "dB"), row("---", "---", "---", "---"))
        found = {}
        for name in sorted(dumps["cpu"]):
            cpu, gpu = dumps["cpu"][name].astype("f8"), dumps["gpu"][name].astype("f8")
            apart, peak = float(abs(cpu - gpu).max()), float(abs(cpu).max())
            square = float(((cpu - gpu) ** 2).mean())
            # A picture's values are from -1 to 1, so its peak to peak is 2.
            decibels = 10 * math.log10((4 if name == "image" else peak**2) / square) if square else math.inf
            found[name] = dict(largest_difference=apart, largest_value=peak, decibels=decibels)
            self.say(row(name, f"{apart:.2e}", f"{peak:.3g}", "equal" if math.isinf(decibels) else f"{decibels:.1f}"))
        self.record["same"] = found

    def ours(self) -> None:
        self.record["gpu"] = [self.bench("gpu", self.args.rounds)]
        self.record["cpu"] = self.bench("cpu", min(self.args.rounds, 9))

    def theirs(self) -> None:
        """PyTorch eager, and what of torch.compile there is time for."""
        if self.args.device == "none":
            return
        dtypes = ["f32", "tf32", "f16", "bf16"] if self.args.device == "cuda" else ["f32"]
        eager = [sys.executable, HERE / "eager.py", "--model", self.args.model.resolve(), "--device", self.args.device, "--rounds", str(self.args.rounds), "--dtype"]
        self.record["torch"] = lines(self.call([*eager, *dtypes]))
        if self.args.device == "cuda":
            # Some seconds are for what comes after it.
            self.args.seconds -= 20
            try:
                compiled = lines(self.call([*eager, "f32", "f16", "--compile", "reduce-overhead", "--only-compiled"]))
                self.record["torch"] += compiled
            finally:
                self.args.seconds += 20

    def counts(self) -> None:
        """Pipelines and dispatches of one picture, by cubecl's own log."""
        (self.work / "cubecl.toml").write_text('[compilation.logger]\nlevel = "basic"\nfile = "log"\n[profiling.logger]\nlevel = "minimal"\nfile = "log"\n')
        drawn = ["generate", "--model", self.args.model.resolve(), "--prompt", self.args.prompt, "--device", "gpu", "--out", self.work / "x.png"]
        counted = {}
        for steps in (2, 3):
            (self.work / "log").unlink(missing_ok=True)
            self.inkbloom(*drawn, "--steps", steps, cwd=self.work)
            text = (self.work / "log").read_text()
            # A kernel's name, its types, and what sets it apart from its like.
            counted[steps] = Counter(f"{name} {apart}" for name, apart in re.findall(r"Executing (\w+?)(?: \| .+)?_(\w+)\n", text)), text
        (few, _), (many, text) = counted[2], counted[3]
        a_step, besides = many - few, few.total() - 2 * (many - few).total()
        pipelines = Counter(name.split("::")[-1] for name in re.findall(r"Compiling kernel\] (\S+)", text))
        self.record.update(dispatches=dict(a_step=a_step.total(), besides=besides, of_a_step=dict(a_step.most_common())), pipelines=dict(pipelines.most_common()))
        self.say("", f"{pipelines.total()} pipelines; {a_step.total()} dispatches a step and {besides} besides, those of the load among them.")
        if self.args.record:
            self.named("-kernels.txt").write_text(text)

    def ours_again(self) -> None:
        """Once more, after PyTorch, so that a drift of the machine would be seen."""
        self.record["gpu"].append(self.bench("gpu", self.args.rounds))

    # --- telling

    def compare(self) -> None:
        gpus, cpu, torches = self.record.get("gpu", []), self.record.get("cpu"), self.record.get("torch", [])
        if not gpus:
            return
        first = gpus[0]
        self.say("", f"Inkbloom on {first['device']}: opening {first['open_ms']:.0f} ms, loading {first['load_ms']:.0f} ms, the first picture {first['first_ms']['total']:.0f} ms (its shaders are compiled).")
        self.say("", "Medians in ms; `picture` is the whole of it, with nothing waited for on the way.", "", row("", *PARTS, "first"), row(*["---"] * 7))
        ours = [gpu["least_median_most_ms"] for gpu in gpus]
        for i, (gpu, medians) in enumerate(zip(gpus, ours)):
            self.say(row(f"Inkbloom, GPU{', again' if i else ''}", *(spread(medians.get(part)) for part in PARTS), f"{gpu['first_ms']['total']:.0f}"))
        if cpu:
            medians = cpu["least_median_most_ms"]
            self.say(row("Inkbloom, CPU", *(spread(medians.get(part)) for part in PARTS), f"{cpu['first_ms']['total']:.0f}"))
        for torch in torches:
            way = f"torch.compile ({torch['compiled']})" if torch["compiled"] else "eager"
            self.say(row(f"PyTorch {torch['torch']} {way}, {torch['dtype']}", *(f"{torch['median_ms'][part]:.2f}" for part in PARTS), f"{torch['first_ms']:.0f}"))
        own = min(medians["picture"][1] for medians in ours)
        ratios = {f"{'compiled ' if torch['compiled'] else 'eager '}{torch['dtype']}": round(torch["median_ms"]["picture"] / own, 2) for torch in torches}
        self.record["ours_over_theirs"] = ratios
        if ratios:
            self.say("", "Ours over theirs, whole pictures: " + ", ".join(f"{name} {ratio}" for name, ratio in ratios.items()) + ".")

    def say(self, *lines: str) -> None:
        self.lines.extend(lines)
        print("\n".join(lines), flush=True)

    def named(self, ending: str) -> Path:
        base = self.args.record
        return base / f"gpu{ending}" if base.is_dir() else base.with_name(base.name + ending)

    def write(self) -> None:
        if self.args.record:
            self.named(".json").write_text(json.dumps(self.record, indent=1) + "\n")
            self.named(".md").write_text("\n".join(self.lines) + "\n")


def quiet(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def spread(times: list[float] | None) -> str:
    return f"{times[1]:.2f} ({times[0]:.2f} to {times[2]:.2f})" if times else ""


if __name__ == "__main__":
    main()
