"""Where is the digit? A box (left, top, right, bottom) around it, trained on intersection over union."""
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)

CANVAS, DIGIT, BORDER = 24, 8, 5


def scenes(images):
    """Each digit somewhere on an empty canvas, at least BORDER pixels from the left and the upper edge."""
    canvas = torch.zeros(len(images), 1, CANVAS, CANVAS)
    corner = torch.randint(BORDER, CANVAS - DIGIT + 1, (len(images), 2))
    for picture, image, (column, row) in zip(canvas, images, corner.tolist()):
        picture[0, row : row + DIGIT, column : column + DIGIT] = image
    return canvas, torch.cat([corner, corner + DIGIT], dim=1) / CANVAS


def area(box):
    return (box[:, 2] - box[:, 0]).clamp(min=0) * (box[:, 3] - box[:, 1]).clamp(min=0)


def iou(box, truth):
    shared = area(torch.cat([torch.maximum(box[:, :2], truth[:, :2]), torch.minimum(box[:, 2:], truth[:, 2:])], dim=1))
    return shared / (area(box) + area(truth) - shared)


class BoxNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        )
        self.hidden = nn.Linear(16 * 6 * 6, 64)
        self.box = nn.Linear(64, 4)

    def forward(self, x):
        x = self.features(x).flatten(1)
        return self.box(torch.relu(self.hidden(x)))


digits = torch.tensor(load_digits().images, dtype=torch.float32) / 16
digits = digits[torch.randperm(len(digits))]
train, test = scenes(digits[:1500]), scenes(digits[1500:])
loader = DataLoader(TensorDataset(*train), batch_size=50, shuffle=True)

model = BoxNet()
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

for epoch in range(1, 31):
    total = 0.0
    for x, truth in loader:
        optimizer.zero_grad()
        loss = (1 - iou(model(x), truth)).mean()
        loss.backward()
        optimizer.step()
        total += loss.item()
    if epoch % 3 == 0:
        with torch.no_grad():
            overlap = iou(model(test[0]), test[1]).mean().item()
        print(f"epoch {epoch}: loss {total / len(loader):.4f}, test overlap {overlap:.3f}")
