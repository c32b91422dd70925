"""A small DVC project of the real one's shape: every system, trained in milliseconds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

NAMES = (
    *("spatial", "temporal", "attention-spatial", "attention-temporal"),
    *("spatial_attended", "temporal_attended"),
)
CLIPS = ("resnet3d", "resnet3d_attention")
SYSTEM_OF = dict.fromkeys(NAMES, "two_stream") | dict.fromkeys(CLIPS, "residual3d")
PIPELINE = f"""
stages:
  raw:
    cmd: python make.py raw
    deps: [make.py]
    params: [sample.seed]
    outs: [data/raw/sample]
  data:
    cmd: python make.py data
    deps: [data/raw/sample]
    outs:
      - data/manifests/sample
      - data/splits/sample
      - data/validation/sample/manifest
      - data/validation/sample/clips
      - data/validation/sample/splits
  train:
    foreach: {json.dumps(SYSTEM_OF)}
    do:
      cmd: python make.py train ${{key}} ${{item}}
      deps: [data/splits/sample/1.csv]
      params: [seed]
      outs: ["checkpoints/sample/${{key}}-1", "predictions/${{item}}/sample/${{key}}-1"]
  evaluate:
    foreach:
      two_stream: {{by: make.py evaluate, from: two_stream/sample, with: data/splits/sample}}
      residual3d: {{by: make.py evaluate, from: residual3d/sample, with: data/splits/sample}}
      saliency: {{by: others.py, from: others/sample_images, with: data/items/saliency}}
      background: {{by: others.py, from: background/sample_scenes, with: data/raw/sample_scenes}}
    do:
      cmd: python ${{item.by}} ${{key}}
      deps: ["predictions/${{item.from}}", "${{item.with}}"]
      outs: ["results/${{key}}"]
  pictures:
    cmd: python others.py pictures
    deps: [others.py]
    outs: [data/raw/sample_images, data/raw/sample_scenes]
  items:
    cmd: python others.py items
    deps: [data/raw/sample_images]
    outs: [data/items/saliency/sample_images]
  train_others:
    foreach: [sample_images/fcn-1, sample_images/fcn_f-1,
              sample_scenes/recurrent-both, sample_scenes/recurrent_median-both]
    do:
      cmd: python others.py train ${{item}}
      deps: [data/raw/sample_images, data/raw/sample_scenes]
      params: [seed]
      outs: ["checkpoints/${{item}}", "predictions/others/${{item}}"]
  predict_scenes:
    foreach: [recurrent-both, recurrent_median-both]
    do:
      cmd: python others.py predict ${{item}}
      deps: ["checkpoints/sample_scenes/${{item}}", data/raw/sample_scenes]
      outs: ["predictions/background/sample_scenes/${{item}}"]
"""
OTHERS = """
import json, sys
from pathlib import Path
import cv2, numpy as np, pandas as pd

def write(path, text):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)

def picture(path, value):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((8, 8), value, np.uint8))

what = sys.argv[1]
scenes, paper = ("baseline/street", "shadow/room"), "ours,comparable,why\\n50.0,False,other data\\n"
if what == "pictures":
    for k in range(4):
        picture(f"data/raw/sample_images/Imgs/i{k}.jpg", 50 * k)
        picture(f"data/raw/sample_images/Imgs/i{k}.png", 255)
    for v, video in enumerate(scenes):
        base = f"data/raw/sample_scenes/{video}"
        for k in range(1, 5):
            picture(f"{base}/input/in{k:06d}.jpg", 60 * v)  # nothing happens
            picture(f"{base}/groundtruth/gt{k:06d}.png", 255)
        picture(f"{base}/ROI.bmp", 255)
        write(f"{base}/temporalROI.txt", "1 4")
elif what == "items":
    base = "data/items/saliency/sample_images/"
    rows = [f"i{k},Imgs/i{k}.jpg,Imgs/i{k}.png,1,8,8" for k in range(4)]
    write(base + "items.csv", "\\n".join(["item_id,image,mask,upright,width,height", *rows]))
    rows = [f"i{k},ok," for k in range(4)]
    write(base + "status.csv", "\\n".join(["item_id,status,reason", *rows, "x,absent,"]))
    write(base + "splits/1.csv", "item_id,subset\\ni0,train\\ni1,val\\ni2,test\\ni3,test\\n")
elif what == "train":
    weights = sys.argv[2] + Path("params.yaml").read_text().partition("\\n")[0]
    write(f"checkpoints/{sys.argv[2]}/model.pt", weights)
    write(f"predictions/others/{sys.argv[2]}", weights)
elif what == "predict":
    rows = [(f"{v}/{k:06d}", "train" if k < 3 else "test", 6 + k, 1, 0, 9)
            for v in scenes for k in range(1, 5)]
    folder = Path("predictions/background/sample_scenes", sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows, columns=["item_id", "subset", "tp", "fp", "fn", "tn"])
    table.to_parquet(folder / "counts.parquet", index=False)
elif what == "saliency":
    base = "results/saliency/"
    write(base + "metrics.json", json.dumps({"fcn_f/f_beta": 0.7, "num_test_images": 2}))
    write(base + "per_split.csv",
          "row,split_id,num_images,f_beta,max_f,mae,s_measure,precision,recall,pooled_f\\n"
          "fcn,1,2,0.9,0.9,0.1,0.9,0.9,0.9,0.9\\nfcn_f,1,2,0.7,0.8,0.2,0.6,0.7,0.8,0.75\\n")
    write(base + "paper_table.csv", paper)
    pd.DataFrame({"row": ["fcn_f"] * 2 + ["fcn"] * 2, "split_id": "1", "item_id": ["i2", "i3"] * 2,
                  "subset": "test", "f_beta": [0.6, 0.8, 0.9, 0.9], "tp": 1, "fp": 0, "fn": 0,
                  "tn": 0}).to_parquet(base + "predictions.parquet", index=False)
else:
    base = "results/background/"
    write(base + "metrics.json", json.dumps({"recurrent_median/f_measure": 0.9}))
    rows = [f"{m},{s},{v},{seen},{part},{f},0.9,0.8" for m, s, f in
            (("recurrent", "both", 0.5), ("recurrent_median", "both", 0.9), ("mog2", "", 0.4))
            for v in scenes for seen in (True,) for part in ("second_half", "all")]
    head = "method,split_id,video_id,seen,part,f_measure,recall,precision"
    write(base + "per_video.csv", "\\n".join([head, *rows]))
    write(base + "paper_table.csv", paper)
"""
MAKE = """
import json, os, sys
from pathlib import Path

def write(path, text):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)

subsets = {"Up/a": "train", "Up/b": "val", "Down/c": "test", "Up/d": "test"}
what = sys.argv[1]
with open(os.environ.get("TOY_LOG", os.devnull), "a") as log:
    print(*sys.argv[1:], file=log)
if what == "raw":
    for clip in subsets:
        write(f"data/raw/sample/videos/{clip}.avi", clip)
elif what == "data":
    base = "data/manifests/sample/"
    rows = [f"{c},{c.split('/')[0]},videos/{c}.avi,hash of {c}" for c in subsets]
    write(base + "clips.csv", "\\n".join(["clip_id,label,path,sha256", *rows]))
    write(base + "classes.csv", "index,label\\n0,Down\\n1,Up\\n")
    rows = [f"{c},{s}" for c, s in subsets.items()]
    write("data/splits/sample/1.csv", "\\n".join(["clip_id,subset", *rows]))
    for gate in ("manifest", "clips", "splits"):
        write(f"data/validation/sample/{gate}/passed.json", "{}")
    write("data/validation/sample/clips/status.csv",
          "clip_id,status\\nUp/a,ok\\nUp/b,ok\\nDown/c,ok\\nUp/d,ok\\nUp/e,quarantined\\n")
elif what == "train":
    seed = Path("params.yaml").read_text().partition("\\n")[0]
    weights = sys.argv[2] + seed + os.environ.get("TOY_NOISE", "")
    write(f"checkpoints/sample/{sys.argv[2]}-1/model.pt", weights)
    write(f"predictions/{sys.argv[3]}/sample/{sys.argv[2]}-1", weights)
else:
    import pandas as pd
    base, own = f"results/{sys.argv[2]}/", {"row": "resnet3d_attention"}
    per_split = ("row,split_id,num_clips,top1,clip_top1,top5,mean_class,log_loss\\n"
                 "resnet3d,1,2,1,1,1,1,0.1\\nresnet3d_attention,1,2,0.5,0.25,1,0.5,0.7\\n")
    if sys.argv[2] == "two_stream":
        own = {"fusion": "attention", "stream": "fused"}
        per_split = ("fusion,split_id,stream,top1,top5,mean_class,log_loss,weight,weight_source\\n"
                     "attention,1,spatial,0.5,1,0.5,1,0.65,validation\\n"
                     "attention,1,fused,0.5,1,0.5,0.7,1,validation\\n")
    name = "/".join(own.values())
    write(base + "metrics.json", json.dumps({f"{name}/top1": 0.5, "num_test_clips": 2}))
    write(base + "per_split.csv", per_split)
    write(base + "paper_table.csv",
          "ours,comparable,why\\n50.0,False,another data set\\n,False,x\\n")
    write(base + "confusion/attention.png", "a picture")
    write(base + "overlays/Down__c.png", "another")
    pd.DataFrame({**own, "split_id": "1",
                  "clip_id": ["Down/c", "Up/d", "Up/b"], "subset": ["test", "test", "val"],
                  "label": ["Down", "Up", "Up"], "predicted": ["Down", "Down", "Up"],
                  "prob_Down": [0.9, 0.8, 0.1], "prob_Up": [0.1, 0.2, 0.9]},
                 ).to_parquet(base + "predictions.parquet", index=False)
"""


def call(*command: str | Path, at: Path) -> str:
    env = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [str(part) for part in command], cwd=at, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, (command, done.stdout[-1500:], done.stderr[-1500:])
    return done.stdout.strip()


def make(root: Path) -> Path:
    """The project with its history: run, pushed, committed."""
    root.mkdir()
    (root / "dvc.yaml").write_text(PIPELINE)
    (root / "make.py").write_text(MAKE)
    (root / "others.py").write_text(OTHERS)
    shutil.copy(ROOT / "params.yaml", root)
    # as here: DVC would put a .gitignore into the folder, which a checkout then makes
    (root / ".gitignore").write_text("/predictions/\n")
    call("git", "init", "-q", "-b", "main", at=root)
    call("git", "config", "user.name", "toy", at=root)
    call("git", "config", "user.email", "toy@localhost", at=root)
    call("dvc", "init", "-q", at=root)
    call("dvc", "remote", "add", "-q", "-d", "store", root.parent / "remote", at=root)
    call("dvc", "repro", "-q", at=root)
    call("dvc", "push", "-q", at=root)
    call("git", "add", "-A", at=root)
    call("git", "commit", "-qm", "all", at=root)
    return root
