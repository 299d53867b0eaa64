import argparse
import gzip

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Garments(Dataset):
    def __init__(self, split, n):
        folder = "/usr/share/datasets/fashion-mnist/"
        with gzip.open(folder + split + "-images-idx3-ubyte.gz") as f:
            x = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 28, 28)[:n] / 255.0
        with gzip.open(folder + split + "-labels-idx1-ubyte.gz") as f:
            y = np.frombuffer(f.read(), np.uint8, offset=8)[:n]
        x = x.reshape(n, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(n, 196)
        self.x = torch.tensor((x - 0.286) / 0.32, dtype=torch.float32)
        self.y = torch.tensor(y, dtype=torch.long)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


def mlp(sizes):
    layers = []
    for n_in, n_out in zip(sizes[:-2], sizes[1:-1]):
        layers += [nn.Linear(n_in, n_out), nn.GELU()]
    layers.append(nn.Linear(sizes[-2], sizes[-1]))
    return nn.Sequential(*layers)


def objective(scores, labels):
    return nn.functional.cross_entropy(scores, labels)


def main(args):
    torch.manual_seed(args.seed)
    train = DataLoader(Garments("train", 6000), batch_size=args.batch, shuffle=True)
    test = Garments("t10k", 1500)
    net = mlp([196, 128, 128, 128, 64, 10])
    opt = torch.optim.SGD(net.parameters(), lr=args.lr)
    for epoch in range(1, args.epochs + 1):
        history = []
        for x, y in train:
            opt.zero_grad()
            loss = objective(net(x), y)
            loss.backward()
            opt.step()
            history.append(loss.detach())
        with torch.no_grad():
            accuracy = net(test.x).argmax(dim=1).eq(test.y).double().mean()
        print(f"{epoch:02d} loss={torch.stack(history).mean():.4f} accuracy={accuracy:.3f}")


if __name__ == "__main__":
    cli = argparse.ArgumentParser()
    cli.add_argument("--lr", type=float, default=0.1)
    cli.add_argument("--batch", type=int, default=64)
    cli.add_argument("--epochs", type=int, default=12)
    cli.add_argument("--seed", type=int, default=0)
    main(cli.parse_args())
