import argparse

import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

torch.set_num_threads(1)

ap = argparse.ArgumentParser()
ap.add_argument("--d-model", type=int, default=4)
ap.add_argument("--heads", type=int, default=2)
ap.add_argument("--d-ff", type=int, default=4)
ap.add_argument("--layers", type=int, default=2)
ap.add_argument("--lr", type=float, default=4e-3)
ap.add_argument("--steps", type=int, default=450)
ap.add_argument("--batch", type=int, default=64)
opt = ap.parse_args()
torch.manual_seed(0)


class PatchTransformer(nn.Module):
    """16 patches of 2x2 pixels, learned positions, mean pooling."""

    def __init__(self, d, heads, ff, layers):
        super().__init__()
        self.proj = nn.Linear(4, d)
        self.pos = nn.Parameter(torch.randn(1, 16, d) * 0.5)
        layer = nn.TransformerEncoderLayer(d, heads, ff, dropout=0.1, batch_first=True, norm_first=True)
        self.enc = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.cls = nn.Linear(d, 10)

    def forward(self, img):
        p = F.unfold(img, kernel_size=2, stride=2).transpose(1, 2)
        h = self.enc(self.proj(p) + self.pos)
        return self.cls(h.mean(1))


bunch = load_digits()
imgs = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
target = torch.tensor(bunch.target)
itr, ite = train_test_split(torch.arange(len(target)).numpy(), test_size=0.2, random_state=0, stratify=bunch.target)
xtr, ytr, xte, yte = imgs[itr], target[itr], imgs[ite], target[ite]

net = PatchTransformer(opt.d_model, opt.heads, opt.d_ff, opt.layers)
adam = torch.optim.AdamW(net.parameters(), lr=opt.lr, weight_decay=1e-4)
sched = torch.optim.lr_scheduler.OneCycleLR(adam, max_lr=opt.lr, total_steps=opt.steps, pct_start=0.1)

for step in range(opt.steps):
    net.train()
    pick = torch.randint(len(xtr), (opt.batch,))
    loss = F.cross_entropy(net(xtr[pick]), ytr[pick])
    adam.zero_grad()
    loss.backward()
    adam.step()
    sched.step()
    if (step + 1) % 50 == 0:
        net.eval()
        with torch.no_grad():
            ltr = F.cross_entropy(net(xtr), ytr)
            pred = net(xte)
            lte = F.cross_entropy(pred, yte)
            acc = (pred.argmax(1) == yte).float().mean()
        print(f"{step + 1}: train {ltr:.4f} test {lte:.4f} acc {acc:.3f}")
