"""Train a wide teacher on Fashion-MNIST, then distill it into a thin, deep student."""
import gzip

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


def fashion(kind, n):
    base = f"/usr/share/datasets/fashion-mnist/{kind}"
    x = np.frombuffer(gzip.open(base + "-images-idx3-ubyte.gz").read(), np.uint8, offset=16)
    y = np.frombuffer(gzip.open(base + "-labels-idx1-ubyte.gz").read(), np.uint8, offset=8)
    x = torch.tensor(x.reshape(-1, 1, 28, 28)[:n].astype("float32") / 255)
    return F.avg_pool2d((x - 0.286) / 0.353, 2), torch.tensor(y[:n].astype("int64"))


def conv_bn(cin, cout, stride=1):
    return nn.Sequential(nn.Conv2d(cin, cout, 3, stride, 1), nn.BatchNorm2d(cout), nn.ReLU())


def make_teacher():
    return nn.Sequential(conv_bn(1, 32), conv_bn(32, 48, 2), conv_bn(48, 64, 2),
                         nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, 10))


def make_student(width=12, depth=10):
    layers = [conv_bn(1, width, 2)]
    layers += [conv_bn(width, width) for _ in range(depth)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 10))


def freeze_norms(net):
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def score(net, x, y):
    was_training = net.training
    net.eval()
    with torch.no_grad():
        acc = (net(x).argmax(1) == y).float().mean().item()
    net.train(was_training)
    return acc


def pretrain(net, x, y, epochs, batch=100):
    opt = torch.optim.Adam(net.parameters(), lr=2e-3)
    for epoch in range(epochs):
        net.train()
        for rows in torch.randperm(len(x)).split(batch):
            loss = F.cross_entropy(net(x[rows]), y[rows])
            opt.zero_grad()
            loss.backward()
            opt.step()
        print(f"teacher epoch {epoch + 1}: last loss {loss.item():.3f}")


def distill(student, teacher, x, y, x_test, y_test, epochs, batch=50, temperature=3.0):
    opt = torch.optim.SGD(student.parameters(), lr=0.02, momentum=0.9)
    for epoch in range(epochs):
        student.train()
        freeze_norms(teacher)
        total = 0.0
        for rows in torch.randperm(len(x)).split(batch):
            with torch.no_grad():
                soft = F.softmax(teacher(x[rows]) / temperature, dim=1)
            out = student(x[rows])
            hint = F.kl_div(F.log_softmax(out / temperature, dim=1), soft, reduction="batchmean")
            loss = F.cross_entropy(out, y[rows]) + temperature ** 2 * hint
            opt.zero_grad()
            loss.backward()
            opt.step()
            total += loss.item() * len(rows)
        print(f"student epoch {epoch + 1}: loss {total / len(x):.3f}, test accuracy {score(student, x_test, y_test):.3f}")


torch.manual_seed(9)
x_train, y_train = fashion("train", 6000)
x_test, y_test = fashion("t10k", 1500)
teacher = make_teacher()
pretrain(teacher, x_train, y_train, epochs=3)
print(f"teacher test accuracy {score(teacher, x_test, y_test):.3f}")
distill(make_student(), teacher, x_train, y_train, x_test, y_test, epochs=6)
