import numpy as np
import torch
import torch.nn as nn
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MinMaxScaler, StandardScaler

torch.manual_seed(0)

# predict the size of the worst cells from the average ones
data = load_breast_cancer()
names = list(data.feature_names)
targets = [names.index("worst radius"), names.index("worst perimeter")]
X = data.data[:, :20]
Y = data.data[:, targets]
X_train, X_val, Y_train, Y_val = train_test_split(X, Y, test_size=0.2, random_state=1)

x_scaler = StandardScaler().fit(X_train)
y_scaler = MinMaxScaler(feature_range=(-0.9, 0.9)).fit(Y_train)
X_train = torch.tensor(x_scaler.transform(X_train), dtype=torch.float32)
X_val = torch.tensor(x_scaler.transform(X_val), dtype=torch.float32)
Y_train = torch.tensor(y_scaler.transform(Y_train), dtype=torch.float32)
Y_val = torch.tensor(y_scaler.transform(Y_val), dtype=torch.float32)

net = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2), nn.Tanh())
mse = nn.MSELoss()
opt = torch.optim.Adam(net.parameters(), lr=1e-3)


def r2(prediction, truth):
    return (1 - ((prediction - truth) ** 2).sum() / ((truth - truth.mean(0)) ** 2).sum()).item()


for epoch in range(80):
    perm = torch.randperm(len(X_train))
    losses = []
    for i in range(0, len(perm), 32):
        idx = perm[i : i + 32]
        opt.zero_grad()
        loss = mse(net(X_train[idx]), Y_train[idx])
        loss.backward()
        opt.step()
        losses.append(loss.item())
    if epoch % 10 == 9:
        with torch.no_grad():
            print(f"epoch {epoch + 1} loss {np.mean(losses):.4f} R2 train {r2(net(X_train), Y_train):.3f} val {r2(net(X_val), Y_val):.3f}")
