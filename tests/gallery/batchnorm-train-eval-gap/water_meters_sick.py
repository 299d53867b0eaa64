import numpy as np
import torch
import torch.nn as nn

# Flow meters of four makers hang in the same kind of house. Each maker has its own gain and zero point.
METERS = [(0.35, -1.6), (0.6, 1.5), (1.0, -0.4), (1.7, 0.6)]
EVENTS = ["shower", "toilet", "washer", "tap", "leak"]
T = 96


def draw_event(kind, rng):
    flow = np.zeros(T)
    start = rng.integers(4, 24)
    if kind == 0:
        flow[start:start + rng.integers(40, 60)] = rng.uniform(0.9, 1.2)
    elif kind == 1:
        n = rng.integers(14, 22)
        flow[start:start + n] = 1.6 * np.exp(-np.arange(n) / 8)
    elif kind == 2:
        for k in range(4):
            at = start + k * 16
            flow[at:at + 7] = rng.uniform(0.8, 1.1)
    elif kind == 3:
        for at in rng.integers(0, T - 6, 4):
            flow[at:at + rng.integers(2, 6)] = rng.uniform(0.4, 1.3)
    else:
        flow[:] = rng.uniform(0.25, 0.45)
        flow[start:start + rng.integers(10, 30)] += rng.uniform(0.6, 1.0)
    return flow + 0.12 * rng.standard_normal(T)


def collect(per_meter, rng):
    x, y, meter = [], [], []
    for m, (gain, zero) in enumerate(METERS):
        for _ in range(per_meter):
            kind = int(rng.integers(len(EVENTS)))
            x.append(zero + 1.8 * gain * (draw_event(kind, rng) - 0.4))
            y.append(kind)
            meter.append(m)
    return torch.tensor(np.array(x), dtype=torch.float32)[:, None], torch.tensor(y), torch.tensor(meter)


def conv(cin, cout, stride):
    return [nn.Conv1d(cin, cout, 5, stride=stride, padding=2), nn.BatchNorm1d(cout), nn.LeakyReLU(0.1)]


class EventNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(*conv(1, 24, 1), *conv(24, 32, 2), *conv(32, 48, 2), *conv(48, 48, 2),
                                 nn.Flatten(), nn.Linear(48 * T // 8, len(EVENTS)))

    def forward(self, x):
        return self.net(x)


def minibatches(meter, size, rng):
    rows = np.argsort(meter.numpy() + rng.random(len(meter)))
    batches = [torch.from_numpy(b) for b in np.array_split(rows, len(rows) // size)]
    rng.shuffle(batches)
    return batches


def main(epochs=9, size=50):
    torch.manual_seed(4)
    rng = np.random.default_rng(4)
    x, y, meter = collect(1500, rng)
    x_val, y_val, meter_val = collect(250, rng)
    model = EventNet()
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    ce = nn.CrossEntropyLoss()
    for epoch in range(1, epochs + 1):
        model.train()
        losses = []
        for rows in minibatches(meter, size, rng):
            adam.zero_grad()
            loss = ce(model(x[rows]), y[rows])
            loss.backward()
            adam.step()
            losses.append(loss.item())
        model.eval()
        with torch.no_grad():
            hit = (model(x_val).argmax(1) == y_val).float()
        each = " ".join(f"{hit[meter_val == m].mean():.2f}" for m in range(len(METERS)))
        print(f"epoch {epoch}  loss {np.mean(losses):.3f}  val acc {hit.mean():.3f}  per meter {each}")


main()
