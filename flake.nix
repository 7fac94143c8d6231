{
  description = "Reverse proxy that adds the OAuth beta flag to requests for the Anthropic API";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;

      # Lazy on purpose: nixpkgs ends its support for Intel Macs (x86_64-darwin) with 26.05, and only who asks for that system
      # gets to read so. `go run ./cmd/anthropic-oauth-proxy` still works there.
      eachSystem =
        outputs:
        lib.genAttrs [
          "x86_64-linux"
          "aarch64-linux"
          "aarch64-darwin"
          "x86_64-darwin"
        ] (system: outputs nixpkgs.legacyPackages.${system});
    in
    {
      packages = eachSystem (pkgs: {
        default = pkgs.buildGoModule (finalAttrs: {
          pname = "anthropic-oauth-proxy";
          version = "0.1.0";

          # The root module and what its tests read. Without one of its packages the vendored modules would be others.
          src = lib.fileset.toSource {
            root = ./.;
            fileset = lib.fileset.unions [
              ./go.mod
              ./go.sum
              ./cmd
              ./docs
              ./internal
            ];
          };

          # `just vendor-hash` rewrites it, `go test ./...` checks it.
          vendorHash = "sha256-GMFZfGMKZrUJQrJRAdaOr391Tw//Xgr2oQhkvm89RjM=";
          # Makes a stale vendorHash fail instead of silently building with the modules of yesterday.
          goSum = ./go.sum;

          env.CGO_ENABLED = 0;
          ldflags = [
            "-s"
            "-w"
          ];

          meta = {
            description = "Reverse proxy that adds the OAuth beta flag to requests for the Anthropic API";
            license = lib.licenses.mit;
            mainProgram = "anthropic-oauth-proxy";
          };
        });
      });

      apps = eachSystem (pkgs: {
        default = {
          type = "app";
          program = lib.getExe self.packages.${pkgs.stdenv.hostPlatform.system}.default;
          meta.description = "Serve 127.0.0.1:8080 with the built-in defaults";
        };
      });

      # Everything the justfile, the tests and the workflows call. mkShell brings a C compiler: the race detector needs one.
      devShells = eachSystem (pkgs: {
        default = pkgs.mkShell {
          packages = [
            pkgs.go
            pkgs.gopls
            pkgs.golangci-lint
            pkgs.just
            pkgs.ko
            pkgs.kubectl
            pkgs.kustomize
            pkgs.kind
            pkgs.crane
            pkgs.cosign
            pkgs.curl
            pkgs.jq
            pkgs.prometheus.cli # promtool
            pkgs.shellcheck
          ]
          ++ lib.optionals pkgs.stdenv.hostPlatform.isLinux [
            pkgs.runc # the tests run the image with it
          ];
          # The Go of flake.lock and no other, or the image's digest would depend on who builds it.
          env.GOTOOLCHAIN = "local";
        };
      });

      checks = eachSystem (pkgs: {
        package = self.packages.${pkgs.stdenv.hostPlatform.system}.default;

        formatting =
          pkgs.runCommand "formatting"
            {
              nativeBuildInputs = [ pkgs.go ];
              src = lib.fileset.toSource {
                root = ./.;
                fileset = lib.fileset.fileFilter (file: file.hasExt "go") ./.;
              };
            }
            ''
              unformatted=$(cd "$src" && gofmt -l .)
              if [ -n "$unformatted" ]; then
                echo "not formatted, run \`nix fmt\`:" $unformatted >&2
                exit 1
              fi
              touch "$out"
            '';
      });

      formatter = eachSystem (
        pkgs:
        pkgs.writeShellApplication {
          name = "format";
          runtimeInputs = [
            pkgs.git
            pkgs.go
            pkgs.nixfmt
          ];
          text = ''
            cd "$(git rev-parse --show-toplevel)"
            nixfmt flake.nix
            gofmt -w .
          '';
        }
      );
    };
}
