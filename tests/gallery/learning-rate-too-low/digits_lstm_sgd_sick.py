import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(4)


class RowLSTM(nn.Module):
    """Reads an 8x8 digit row by row."""

    def __init__(self, hidden=64):
        super().__init__()
        self.lstm = nn.LSTM(input_size=8, hidden_size=hidden, batch_first=True)
        self.fc = nn.Linear(hidden, 10)

    def forward(self, rows):
        _, (h, _) = self.lstm(rows)
        return self.fc(h[-1])


data = load_digits()
images = torch.tensor(data.images, dtype=torch.float32).div(16).sub(0.3).div(0.38)
labels = torch.tensor(data.target)
shuffle = torch.randperm(len(images))
images, labels = images[shuffle], labels[shuffle]
train_loader = DataLoader(TensorDataset(images[:1500], labels[:1500]), batch_size=32, shuffle=True)
val_x, val_y = images[1500:], labels[1500:]

model = RowLSTM()
optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
criterion = nn.CrossEntropyLoss()

for epoch in range(20):
    model.train()
    losses = []
    for x, y in train_loader:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        acc = (model(val_x).argmax(-1) == val_y).float().mean()
    if epoch % 4 == 3:
        print(f"epoch {epoch + 1:2d}: loss {sum(losses) / len(losses):.4f}  val accuracy {acc:.3f}")
