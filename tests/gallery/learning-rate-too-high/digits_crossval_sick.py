import numpy as np
import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

FOLDS = 3
PARAMS = {"hidden": 192, "lr": 1.5, "momentum": 0.9, "batch_size": 32, "epochs": 40}


class MLP(nn.Module):
    def __init__(self, n_in, hidden, n_out):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_in, hidden), nn.Tanh(),
            nn.Linear(hidden, hidden), nn.Tanh(),
            nn.Linear(hidden, n_out),
        )

    def forward(self, x):
        return self.layers(x)


def batches(x, y, size):
    order = np.random.permutation(len(x))
    for i in range(0, len(order), size):
        rows = order[i:i + size]
        yield torch.as_tensor(x[rows]), torch.as_tensor(y[rows])


def predict(model, x):
    model.eval()
    with torch.no_grad():
        return model(torch.as_tensor(x)).double().softmax(dim=1).numpy()


def train_fold(fold, x_train, y_train, x_val, y_val):
    model = MLP(x_train.shape[1], PARAMS["hidden"], 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=PARAMS["lr"], momentum=PARAMS["momentum"])
    criterion = nn.CrossEntropyLoss()
    for epoch in range(1, PARAMS["epochs"] + 1):
        model.train()
        history = []
        for xb, yb in batches(x_train, y_train, PARAMS["batch_size"]):
            optimizer.zero_grad()
            loss = criterion(model(xb), yb)
            loss.backward()
            optimizer.step()
            history.append(loss.item())
        if epoch % 10 == 0:
            acc = accuracy_score(y_val, predict(model, x_val).argmax(1))
            print(f"  fold {fold} epoch {epoch:3d}  loss {np.mean(history):.4f}  val accuracy {acc:.3f}")
    probabilities = predict(model, x_val)
    return accuracy_score(y_val, probabilities.argmax(1)), log_loss(y_val, probabilities, labels=range(10))


def main():
    np.random.seed(31)
    torch.manual_seed(31)
    x, y = load_digits(return_X_y=True)
    results = []
    splitter = StratifiedKFold(n_splits=FOLDS, shuffle=True, random_state=31)
    for fold, (tr, va) in enumerate(splitter.split(x, y), 1):
        scaler = StandardScaler().fit(x[tr])
        x_tr = scaler.transform(x[tr]).astype(np.float32)
        x_va = scaler.transform(x[va]).astype(np.float32)
        acc, ll = train_fold(fold, x_tr, y[tr], x_va, y[va])
        print(f"fold {fold}: accuracy {acc:.4f}, log loss {ll:.4f}")
        results.append(acc)
    print(f"mean accuracy {np.mean(results):.4f} +- {np.std(results):.4f}")


if __name__ == "__main__":
    main()
