import torch
from sklearn.datasets import load_breast_cancer

torch.manual_seed(0)
x, y = load_breast_cancer(return_X_y=True)
x = torch.tensor((x - x.mean(0)) / x.std(0), dtype=torch.float32)
y = torch.tensor(y, dtype=torch.float32)
perm = torch.randperm(len(x))
train, test = perm[:450], perm[450:]

w = torch.zeros(30, requires_grad=True)
b = torch.zeros((), requires_grad=True)
optimizer = torch.optim.SGD([w, b], lr=0.03)

for epoch in range(40):
    order = train[torch.randperm(len(train))]
    for i in range(0, len(order), 32):
        idx = order[i:i + 32]
        z = x[idx] @ w + b
        loss = torch.nn.functional.binary_cross_entropy_with_logits(z, y[idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if epoch % 5 == 4:
        with torch.no_grad():
            accuracy = (((x[test] @ w + b) > 0) == (y[test] > 0.5)).float().mean().item()
        print("epoch", epoch + 1, "loss", round(loss.item(), 4), "accuracy", round(accuracy, 4))
