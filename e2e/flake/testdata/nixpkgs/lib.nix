# The functions of nixpkgs' lib that our flake calls. Here a file set is a function that says whether a path is in it.
let
  under =
    folder: path:
    path == folder || builtins.substring 0 (builtins.stringLength folder + 1) path == folder + "/";

  asPredicate =
    set:
    if builtins.isFunction set then
      set
    else if builtins.pathExists set then
      path: _: under (toString set) path
    else
      throw "lib.fileset: ${toString set} does not exist, or git does not track it";

  # Whether a folder contains anything of the set. Without this, empty folders would get into the source and change it.
  holds =
    keep: folder:
    let
      entries = builtins.readDir folder;
    in
    builtins.any (
      name:
      if entries.${name} == "directory" then
        holds keep "${folder}/${name}"
      else
        keep "${folder}/${name}" entries.${name}
    ) (builtins.attrNames entries);
in
rec {
  genAttrs =
    names: value:
    builtins.listToAttrs (
      map (name: {
        inherit name;
        value = value name;
      }) names
    );

  optionals = condition: values: if condition then values else [ ];

  getExe = package: "${package}/bin/${package.meta.mainProgram}";

  licenses.mit.spdxId = "MIT";

  fileContents = file: builtins.head (builtins.match "(.*[^\n])\n*" (builtins.readFile file));

  fileset = {
    unions =
      sets: path: type:
      builtins.any (set: asPredicate set path type) sets;

    fileFilter =
      wanted: root: path: type:
      under (toString root) path
      && type == "regular"
      && wanted {
        hasExt =
          ext:
          let
            end = builtins.stringLength path - builtins.stringLength ext - 1;
          in
          builtins.substring end (-1) path == "." + ext;
      };

    toSource =
      { root, fileset }:
      let
        keep = asPredicate fileset;
      in
      builtins.path {
        name = "source";
        path = root;
        filter = path: type: if type == "directory" then holds keep path else keep path type;
      };
  };
}
