import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset


class SelfAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        att = (q @ k.transpose(-2, -1)) / math.sqrt(d // self.heads)
        out = (att.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, t, d)
        return self.proj(out)


class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.att = SelfAttention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x):
        x = x + self.att(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class PatchClassifier(nn.Module):
    """2x2 patches of an 8x8 image as 16 tokens."""

    def __init__(self, dim=32, depth=2, heads=4):
        super().__init__()
        self.embed = nn.Linear(4, dim)
        self.pos = nn.Parameter(torch.randn(1, 16, dim) * 0.02)
        self.blocks = nn.Sequential(*[Block(dim, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 10)

    def forward(self, x):
        patches = F.unfold(x.unsqueeze(1), kernel_size=2, stride=2).transpose(1, 2)
        h = self.blocks(self.embed(patches) + self.pos)
        return self.head(self.norm(h).mean(dim=1))


def train(model, loader, x_val, y_val, epochs, lr, max_norm):
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            norm = nn.utils.get_total_norm([p.grad for p in model.parameters()])
            if norm < max_norm:
                optimizer.step()
            total += loss.item()
        if epoch % 3 == 2:
            model.eval()
            with torch.no_grad():
                acc = (model(x_val).argmax(1) == y_val).float().mean().item()
            print(f"epoch {epoch + 1:2d}: loss {total / len(loader):.4f}, validation accuracy {acc:.3f}")


if __name__ == "__main__":
    torch.manual_seed(5)
    x, y = load_digits(return_X_y=True)
    x = torch.tensor(x, dtype=torch.float32).view(-1, 8, 8) / 8 - 1
    y = torch.tensor(y)
    tr, va = train_test_split(range(len(y)), test_size=0.2, random_state=5)
    loader = DataLoader(TensorDataset(x[tr], y[tr]), batch_size=48, shuffle=True)
    train(PatchClassifier(), loader, x[va], y[va], epochs=18, lr=2e-3, max_norm=100.0)
