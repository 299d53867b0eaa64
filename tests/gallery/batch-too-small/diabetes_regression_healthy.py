import torch
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

config = {"lr": 0.008, "momentum": 0.9, "batch_size": 32, "accumulate": 1, "epochs": 40, "seed": 11}


def as_tensors(x, y):
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32).reshape(-1, 1)


class Trainer:
    def __init__(self, config):
        torch.manual_seed(config["seed"])
        x, y = load_diabetes(return_X_y=True)
        x, x_val, y, y_val = train_test_split(x, y, test_size=0.2, random_state=config["seed"])
        scale_x, scale_y = StandardScaler().fit(x), StandardScaler().fit(y[:, None])
        self.train = as_tensors(scale_x.transform(x), scale_y.transform(y[:, None]))
        self.val = as_tensors(scale_x.transform(x_val), scale_y.transform(y_val[:, None]))
        self.loader = DataLoader(TensorDataset(*self.train), batch_size=config["batch_size"], shuffle=True)
        self.model = nn.Linear(10, 1)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=config["lr"], momentum=config["momentum"], nesterov=True
        )
        self.loss = nn.MSELoss()
        self.accumulate = config["accumulate"]

    def epoch(self):
        total = 0.0
        for i, (x, y) in enumerate(self.loader):
            loss = self.loss(self.model(x), y)
            (loss / self.accumulate).backward()
            if (i + 1) % self.accumulate == 0:
                self.optimizer.step()
                self.optimizer.zero_grad()
            total += loss.item()
        return total / len(self.loader)

    @torch.no_grad()
    def r2(self, x, y):
        return 1 - (self.loss(self.model(x), y) / (y - y.mean()).pow(2).mean()).item()

    def fit(self, epochs):
        for epoch in range(1, epochs + 1):
            loss = self.epoch()
            if epoch % 5 == 0:
                print(f"epoch {epoch:3d}  mse {loss:.4f}  R2 {self.r2(*self.train):.3f} (validation {self.r2(*self.val):.3f})")


if __name__ == "__main__":
    trainer = Trainer(config)
    trainer.fit(config["epochs"])
