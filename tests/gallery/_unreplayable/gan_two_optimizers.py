"""A small GAN on the 8x8 digits."""
import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset


def main():
    torch.manual_seed(0)
    x = torch.tensor(load_digits().data, dtype=torch.float32) / 8 - 1
    loader = DataLoader(TensorDataset(x), batch_size=64, shuffle=True, drop_last=True)

    latent = 16
    generator = nn.Sequential(nn.Linear(latent, 64), nn.ReLU(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.Tanh())
    discriminator = nn.Sequential(nn.Linear(64, 128), nn.LeakyReLU(0.2), nn.Linear(128, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
    opt_g = torch.optim.Adam(generator.parameters(), lr=5e-4, betas=(0.5, 0.999))
    opt_d = torch.optim.Adam(discriminator.parameters(), lr=5e-4, betas=(0.5, 0.999))
    criterion = nn.BCEWithLogitsLoss()
    ones, zeros = torch.ones(64, 1), torch.zeros(64, 1)

    for epoch in range(30):
        for (real,) in loader:
            fake = generator(torch.randn(64, latent))

            opt_d.zero_grad()
            loss_d = criterion(discriminator(real), 0.9 * ones) + criterion(discriminator(fake.detach()), zeros)
            loss_d.backward()
            opt_d.step()

            opt_g.zero_grad()
            loss_g = criterion(discriminator(fake), ones)
            loss_g.backward()
            opt_g.step()
        if epoch % 5 == 4:
            print(f"epoch {epoch + 1}: discriminator {loss_d.item():.3f}, generator {loss_g.item():.3f}, "
                  f"mean pixel {fake.mean().item():.3f} against {x.mean().item():.3f}")


if __name__ == "__main__":
    main()
