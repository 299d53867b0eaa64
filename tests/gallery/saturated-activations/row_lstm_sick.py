import argparse
import gzip

import numpy as np
import torch
import torch.nn as nn

torch.set_num_threads(1)

parser = argparse.ArgumentParser()
parser.add_argument("--hidden", type=int, default=64)
parser.add_argument("--epochs", type=int, default=6)
parser.add_argument("--lr", type=float, default=2e-3)
parser.add_argument("--std", type=float, default=2.0)
parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist")
args = parser.parse_args()
torch.manual_seed(11)


def load(kind, n):
    imgs = gzip.open(f"{args.data}/{kind}-images-idx3-ubyte.gz").read()
    labs = gzip.open(f"{args.data}/{kind}-labels-idx1-ubyte.gz").read()
    x = np.frombuffer(imgs, np.uint8, offset=16).reshape(-1, 28, 28)[:n]
    y = np.frombuffer(labs, np.uint8, offset=8)[:n]
    return torch.tensor((x / 127.5 - 1).astype(np.float32)), torch.tensor(y.astype(np.int64))


class RowLSTM(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.lstm = nn.LSTM(28, hidden, batch_first=True)
        self.fc = nn.Linear(hidden, 10)
        for name, p in self.lstm.named_parameters():
            if "weight" in name:
                nn.init.normal_(p, 0.0, args.std)
            else:
                nn.init.zeros_(p)

    def forward(self, x):
        seq, _ = self.lstm(x)
        return self.fc(seq[:, -1])


X, Y = load("train", 8000)
Xv, Yv = load("t10k", 1000)
model = RowLSTM(args.hidden)
ce = nn.CrossEntropyLoss()
optimizer = torch.optim.RMSprop(model.parameters(), lr=args.lr)

for ep in range(args.epochs):
    order = torch.randperm(X.size(0))
    tot, correct = 0.0, 0
    for chunk in order.split(64):
        logits = model(X[chunk])
        loss = ce(logits, Y[chunk])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        tot += loss.item() * chunk.numel()
        correct += (logits.argmax(-1) == Y[chunk]).sum().item()
    with torch.no_grad():
        lv = model(Xv)
    print(f"[{ep + 1}/{args.epochs}] loss={tot / len(X):.4f} acc={correct / len(X):.3f} "
          f"val_loss={ce(lv, Yv).item():.4f} val_acc={(lv.argmax(-1) == Yv).float().mean().item():.3f}")
